// Unmodified drivers at the relay: puppeteer-core or playwright-core attaches, opens the session's page and uses it. Run by test_relay_drivers.py.
// Prints one JSON object: what each step came to.
import { createRequire } from 'node:module';
const [,, modules, driver, endpoint, token, home] = process.argv;
const require = createRequire(`${modules}/`);
const headers = { Authorization: `Bearer ${token}` };
const told = {};

async function used(page, screenshot) {
  told.evaluate = await page.evaluate(() => 6 * 7);
  const asked = [];
  await page.exposeFunction('tellApp', value => { asked.push(value); });
  await page.evaluate(() => tellApp('from the page'));
  told.exposed = asked;
  const heard = new Promise(resolve => page.once('console', message => resolve(message.text())));
  await page.evaluate(() => console.log('listen'));
  told.console = await heard;
  told.screenshot = Buffer.from(await screenshot()).subarray(1, 4).toString();
  await page.goto(home);
  told.reloaded = new URL(page.url()).origin === new URL(home).origin;
  told.elsewhere = await page.goto('file:///etc/passwd').then(() => 'went', error => String(error.message));
  told.half = await page.evaluate(text => text, '\ud83d alone');
}

async function puppeteer() {
  const core = await import(require.resolve('puppeteer-core')).then(one => one.default);
  const browser = await core.connect({ browserWSEndpoint: endpoint, headers });
  told.pages = (await browser.pages()).length;
  const page = await browser.newPage();
  await used(page, () => page.screenshot());
  told.pages_after = (await browser.pages()).length;
  await page.close();
  told.closed = page.isClosed();
  const again = await browser.newPage();
  told.again = await again.evaluate(() => 6 * 7);
  const context = await browser.createBrowserContext();
  const own = await context.newPage();
  told.own = await own.evaluate(() => 1 + 1);
  await context.close();
  told.kinds = [...new Set(browser.targets().map(one => one.type()))].sort();
  await browser.close();
}

async function playwright() {
  const { chromium } = await import(require.resolve('playwright-core')).then(one => one.default);
  const browser = await chromium.connectOverCDP(endpoint, { headers });
  const [context] = browser.contexts();
  told.pages = context.pages().length;
  const page = await context.newPage();
  await used(page, () => page.screenshot());
  told.pages_after = context.pages().length;
  await page.close();
  told.closed = page.isClosed();
  const again = await context.newPage();
  told.again = await again.evaluate(() => 6 * 7);
  const mine = await browser.newContext();
  const own = await mine.newPage();
  told.own = await own.evaluate(() => 1 + 1);
  await mine.close();
  await browser.close();
}

await { puppeteer, playwright }[driver]();
console.log(JSON.stringify(told));
process.exit(0);
