// Each message that arrives, as a line of JSON, beside whatever bot owns the page.
//   npm install playwright-core
//   WAGUARD_TOKEN=$(waguard token demo) node playwright_listen.mjs
import { chromium } from 'playwright-core';

const [,, endpoint = 'ws://127.0.0.1:8717/v1/sessions/demo/cdp'] = process.argv;
const headers = { Authorization: `Bearer ${process.env.WAGUARD_TOKEN}` };

const browser = await chromium.connectOverCDP(endpoint, { headers });
const [page] = browser.contexts()[0].pages();

await page.exposeFunction('heard', message => console.log(JSON.stringify(message)));
const listen = () => page.evaluate(() => {
  const { Msg } = window.require('WAWebCollections');
  Msg.on('add', ({ id, isNewMsg, type, body }) => {
    if (isNewMsg && !id.fromMe) window.heard({ from: id.remote._serialized, type, body });
  });
});
page.on('load', listen); // a bot that attaches loads the page
await listen();
console.error('listening');
browser.on('disconnected', () => process.exit(1)); // waguard has ended it: attach again
