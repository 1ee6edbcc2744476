// A CRM's backend with Node's own fetch: connect, the QR code of the moment in the terminal, and then whatever happens. Nothing polls.
//
//   WAGUARD_TOKEN=$(waguard token demo) node crm.mjs

const url = process.argv[2] ?? "http://127.0.0.1:8717"
const headers = { Authorization: `Bearer ${process.env.WAGUARD_TOKEN}` }

async function* events(at = "") {
  const feed = await fetch(`${url}/v1/events?kind=session`, { headers: { ...headers, ...(at && { "Last-Event-ID": at }) } })
  if (!feed.ok) throw new Error(`${feed.status}: ${await feed.text()}`)
  let rest = ""
  for await (const piece of feed.body.pipeThrough(new TextDecoderStream())) {
    const frames = (rest + piece).split("\n\n")
    rest = frames.pop()
    for (const frame of frames) {
      const line = frame.split("\n").find((one) => one.startsWith("data: "))
      if (line) yield JSON.parse(line.slice(6))
    }
  }
}

let connected = false
for await (const event of events()) {
  if (!event.name) fetch(`${url}/v1/sessions/demo/connect?wait=none`, { method: "POST", headers }) // the feed is ready
  if (event.name === "session.qr_shown") {
    const qr = await fetch(`${url}/v1/sessions/demo/qr`, { headers: { ...headers, Accept: "text/plain" } })
    console.log(await qr.text())
  }
  if (event.name === "session.changed" && (event.fields.status === "connected") !== connected) {
    connected = !connected
    console.log(connected ? "connected" : "not connected any more")
  }
}
