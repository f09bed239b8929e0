// A real Chromium, told what to do by lines of JSON on standard input: {"goto": URL} or {"run": "body of an async function"}.
// Each is answered by a line: {"value": …} or {"error": "…"}. Argument: the path of the browser. Ends with standard input.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ["--disable-quic", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage();
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    const value = command.goto
      ? await page.goto(command.goto).then((response) => response.status())
      : await page.evaluate(`(async () => { ${command.run} })()`);
    answer = { value: value ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
