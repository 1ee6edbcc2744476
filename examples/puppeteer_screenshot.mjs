// A picture of what a session shows, beside whatever bot owns its page.
//   npm install puppeteer-core
//   WAGUARD_TOKEN=$(waguard token demo) node puppeteer_screenshot.mjs
import puppeteer from 'puppeteer-core';

const [,, browserWSEndpoint = 'ws://127.0.0.1:8717/v1/sessions/demo/cdp'] = process.argv;
const headers = { Authorization: `Bearer ${process.env.WAGUARD_TOKEN}` };

// Without a viewport of ours: it would be everybody's.
const browser = await puppeteer.connect({ browserWSEndpoint, headers, defaultViewport: null });
const [page] = await browser.pages(); // browser.newPage() would own it, and could navigate
await page.screenshot({ path: 'session.png' });
console.log(await page.title());
await browser.close(); // for us alone
