"""A strict reader of event streams: "Parsing an event stream" and "Interpreting an event stream" of the WHATWG HTML
standard, §9.2.5 and §9.2.6, by the letter, and some more counting."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What a page gets to see: `message` is the name of an event that has none."""

    name: str
    data: str
    last_event_id: str


@dataclass(slots=True)
class Parser:
    """Feed it bytes, cut anywhere. `events` is what was dispatched; `retry` and `last_event_id` are as they stand;
    `comments` are the comment lines' texts; `ids` is every last event id that was set, dispatching or not."""

    events: list[Dispatched] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    retry: int | None = None
    last_event_id: str = ""
    _waiting: bytearray = field(default_factory=bytearray)
    _begun: bool = False
    _after_cr: bool = False
    _id: str = ""
    _name: str = ""
    _data: str = ""

    def feed(self, chunk: bytes) -> list[Dispatched]:
        """The events that `chunk` completes."""
        before = len(self.events)
        self._waiting += chunk
        if not self._begun:
            if b"\xef\xbb\xbf".startswith(bytes(self._waiting[:3])) and len(self._waiting) < 3:
                return []
            self._begun = True
            if self._waiting.startswith(b"\xef\xbb\xbf"):
                del self._waiting[:3]
        while (line := self._line()) is not None:
            self._read(line.decode("utf-8", "replace"))
        return self.events[before:]

    def named(self, name: str) -> list[Dispatched]:
        """The events of one name."""
        return [each for each in self.events if each.name == name]

    def _line(self) -> bytes | None:
        if self._after_cr and self._waiting:
            self._after_cr = False
            if self._waiting[0] == 0x0A:  # the second half of a CRLF, which may come in a chunk of its own
                del self._waiting[0]
        ends = [at for at in (self._waiting.find(b"\r"), self._waiting.find(b"\n")) if at >= 0]
        if not ends:
            return None
        end = min(ends)
        line = bytes(self._waiting[:end])
        self._after_cr = self._waiting[end] == 0x0D
        del self._waiting[: end + 1]
        return line

    def _read(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        if line.startswith(":"):
            self.comments.append(line[1:])
            return
        name, _, value = line.partition(":")
        self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._name = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self) -> None:
        if self._id != self.last_event_id:
            self.ids.append(self._id)
        self.last_event_id = self._id
        if self._data:
            self.events.append(Dispatched(self._name or "message", self._data.removesuffix("\n"), self.last_event_id))
        self._data = self._name = ""


def parse(stream: bytes) -> Parser:
    """A parser that has read all of `stream`."""
    parser = Parser()
    parser.feed(stream)
    return parser
