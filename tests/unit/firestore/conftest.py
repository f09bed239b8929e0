from tests.support.firestore import firestore_client, firestore_process, firestore_server

__all__ = ["firestore_client", "firestore_process", "firestore_server"]
