// A client of a browser's DevTools, by ws or by puppeteer: does what each line of its standard input says, and answers with a line. Run by relay.py.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [,, modules, endpoint, token] = process.argv;
const require = createRequire(`${modules}/`);
const WebSocket = require('ws');
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const ws = new WebSocket(endpoint, { headers, perMessageDeflate: false, maxPayload: 0 });
const asked = new Map();
let number = 0, session, heard = 0, closed = false, page;

ws.on('message', data => {
  if (data.length > 1000 && !data.subarray(0, 20).includes('"id":')) { heard++; return; }
  const said = data.length > 1e6 ? { id: Number(/"id":(\d+)/.exec(data.subarray(0, 40))[1]) } : JSON.parse(data);
  if (said.id === undefined) { heard++; return; }
  const done = asked.get(said.id);
  asked.delete(said.id);
  done?.(said.result ?? said);
});
ws.on('close', () => { closed = true; for (const done of asked.values()) done({}); });
ws.on('error', error => { if (session === undefined) { console.error(error); process.exit(1); } });

function ask(method, params = {}, sessionId = session) {
  return new Promise(done => {
    asked.set(++number, done);
    ws.send(JSON.stringify({ id: number, method, params, sessionId }));
  });
}

async function timed(count, inFlight, once) {
  const took = [];
  let left = count;
  const began = process.hrtime.bigint();
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (left-- > 0) {
      const sent = process.hrtime.bigint();
      await once();
      took.push(Number(process.hrtime.bigint() - sent) / 1e3);
    }
  }));
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  took.sort((one, other) => one - other);
  return { seconds, p50: took[count >> 1], p99: took[Math.floor(count * 0.99)] };
}

const evaluate = expression => ask('Runtime.evaluate', { expression, returnByValue: true });

const DO = {
  rounds: ({ count, inFlight }) => timed(count, inFlight, () => evaluate('1')),
  once: ({ expression }) => timed(1, 1, () => evaluate(expression)),
  upload: ({ bytes }) => { const expression = `'${'A'.repeat(bytes)}'.length`; return timed(1, 1, () => evaluate(expression)); },
  async puppeteer({ count }) {
    if (!page) {
      const browser = await require('puppeteer-core').connect({ browserWSEndpoint: endpoint, headers, defaultViewport: null });
      page = (await browser.pages())[0];
    }
    return timed(count, 1, () => page.evaluate(() => 1));
  },
  listen: () => ask('Runtime.enable').then(() => ({})),
  async empty({ count }) {  // frames that are no commands, each of which is answered
    for (let sent = 0; sent < count && !closed; sent++) {
      ws.send('{}');
      if (sent % 1000 === 0) await new Promise(done => setImmediate(done));
    }
    await evaluate('1');
    return {};
  },
};

ws.on('open', async () => {
  const { targetInfos } = await ask('Target.getTargets');
  const { targetId } = targetInfos.find(one => one.type === 'page');
  session = (await ask('Target.attachToTarget', { targetId, flatten: true })).sessionId;
  console.log('{}');
  for await (const line of createInterface({ input: process.stdin })) {
    const what = JSON.parse(line);
    console.log(JSON.stringify({ ...await DO[what.do](what), heard, closed }));
  }
  process.exit(0);
});
