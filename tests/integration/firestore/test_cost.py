"""What calls cost is what docs/firestore.md says, and what they must not cost, they do not."""

from dataclasses import replace

from tests.integration.firestore import cost
from tests.support.valkey import Valkey


async def test_the_documented_table_is_what_is_counted(valkey: Valkey) -> None:
    rows = await cost.measure(valkey)
    assert cost.stated() == cost.table(rows), "run python -m tests.integration.firestore.cost"
    counted = {row.call: (row.reads, row.writes, row.deletes) for row in rows}
    for call in (
        "GetDevice, cached",
        "ListDevices, first page of 50, cached",
        "CountDevices, cached",
        "Heartbeat until the flush is due",
        "a round of the sweep, nobody silent",
    ):
        assert counted[call] == (0, 0, 0), call
    assert counted["GetDevice, not cached"] == (1, 0, 0)
    assert counted["CreateDevice"] == (0, 2, 0)  # the device, and that it was created
    assert counted["UpdateDevice"] == (1, 2, 0)
    assert counted["DeleteDevice"] == (0, 1, 1)
    assert counted["UpdateDevice that changes nothing"] == (1, 0, 0)
    assert counted["Heartbeat with which the flush is due"] == (1, 1, 0)  # that it was seen is told to nobody
    dearer = [replace(rows[0], reads=rows[0].reads + 1), *rows[1:]]
    assert cost.stated() != cost.table(dearer)
