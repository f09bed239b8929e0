// Follows a stream with the `eventsource` package and prints what it dispatches, one line of JSON each.
// Arguments: URL, bearer token, then the types of events to listen to.
import { EventSource } from "eventsource";

const [url, token, ...types] = process.argv.slice(2);
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const source = new EventSource(url, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
});
source.onopen = () => say({ event: "open" });
source.onerror = (error) => say({ event: "error", status: error.code ?? 0, closed: source.readyState === source.CLOSED });
for (const type of [...types, "gap", "warning", "end"]) {
  source.addEventListener(type, (event) => say({ event: type, id: event.lastEventId, data: event.data }));
}
process.stdin.on("end", () => process.exit(0)).resume();
