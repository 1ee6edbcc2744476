// A receiver of webhooks with nothing but Node: it checks the signature of each message, and takes each once, though one may come again.
//
//   WEBHOOK_SECRET=whsec_... node webhook_receiver.mjs 8080        # the secret is what waguard webhook create has printed

import { createHmac, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"

const key = Buffer.from(process.env.WEBHOOK_SECRET.replace("whsec_", ""), "base64")
const taken = new Set() // in a CRM: a unique column of the table that it writes what has happened to

function isGood({ "webhook-id": id, "webhook-timestamp": at, "webhook-signature": signatures = "" }, body) {
  if (!(Math.abs(Date.now() / 1000 - at) < 300)) return false // an old message that somebody sends again
  const good = createHmac("sha256", key).update(`${id}.${at}.`).update(body).digest()
  return signatures.split(" ").some((one) => {
    const sent = Buffer.from(one.replace("v1,", ""), "base64")
    return one.startsWith("v1,") && sent.length === good.length && timingSafeEqual(sent, good)
  })
}

createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray())
  if (!isGood(request.headers, body)) return response.writeHead(401).end()
  const id = request.headers["webhook-id"]
  if (!taken.has(id)) {
    const { type, data } = JSON.parse(body)
    console.log(type, data.client, data.fields)
    taken.add(id)
  }
  response.writeHead(204).end() // only now: until then waguard sends it again
}).listen(Number(process.argv[2]), "127.0.0.1")
