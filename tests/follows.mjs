// An unmodified driver that stays attached over a restart of the browser. Run by test_relay_follow.py. Prints what it sees, a line of JSON each.
import { createRequire } from 'node:module';
const [,, modules, driver, endpoint, token, home] = process.argv;
const require = createRequire(`${modules}/`);
const headers = { Authorization: `Bearer ${token}` };
const tell = (event, said = null) => console.log(JSON.stringify({ event, said }));
const failed = call => call.then(() => 'it did not', error => String(error.message));

async function used(page) {
  await page.goto(home);
  const asked = [];
  await page.exposeFunction('tellApp', value => { asked.push(value); });
  return [await page.evaluate(() => { tellApp('from the page'); return 6 * 7; }), asked];
}

async function puppeteer() {
  const core = await import(require.resolve('puppeteer-core')).then(one => one.default);
  const browser = await core.connect({ browserWSEndpoint: endpoint, headers });
  browser.on('disconnected', () => tell('disconnected'));
  const page = await browser.newPage();
  const closed = new Promise(resolve => page.once('close', resolve));
  const asked = failed(page.evaluate(() => new Promise(() => {})));
  tell('attached');
  await closed;
  tell('closed', [await asked, await failed(browser.version())]);
  const target = await browser.waitForTarget(one => one.type() === 'page', { timeout: 60000 });
  const next = await browser.newPage();
  tell('again', [next === await target.page(), next !== page, ...await used(next)]);
  await browser.close();
}

async function playwright() {
  const { chromium } = await import(require.resolve('playwright-core')).then(one => one.default);
  const browser = await chromium.connectOverCDP(endpoint, { headers });
  browser.on('disconnected', () => tell('disconnected'));
  const [context] = browser.contexts();
  const page = await context.newPage();
  const closed = new Promise(resolve => page.once('close', resolve));
  const back = context.waitForEvent('page', { timeout: 60000 });
  const asked = failed(page.evaluate(() => new Promise(() => {})));
  tell('attached');
  await closed;
  tell('closed', [await asked, await failed(context.newPage())]);
  const target = await back;
  const next = await context.newPage();
  tell('again', [next === target, next !== page, ...await used(next)]);
  await browser.close();
}

await { puppeteer, playwright }[driver]();
process.exit(0);
