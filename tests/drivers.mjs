// Unmodified drivers at the relay: puppeteer-core or playwright-core attaches to a session and does what it is told. Run by test_relay_drivers.py.
// Speaks lines of JSON, as bots.py has them: `alone` owns the session's page and uses it, `beside` uses the page that another client owns.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
const [,, modules, name, endpoint, token, home] = process.argv;
const require = createRequire(`${modules}/`);
const core = await import(require.resolve(name)).then(one => one.default);
const headers = { Authorization: `Bearer ${token}` };

const DRIVERS = {
  puppeteer: {
    attach: () => core.connect({ browserWSEndpoint: endpoint.replace('http', 'ws'), headers }),
    pages: browser => browser.pages(),
    open: browser => browser.newPage(),
    context: browser => browser.createBrowserContext(),
    choose: (input, file) => input.uploadFile(file),
    async intercept(page, path, body) {
      await page.setRequestInterception(true);
      page.on('request', request => (request.url().endsWith(path) ? request.respond({ body }) : request.continue()));
    },
  },
  playwright: {
    attach: () => core.chromium.connectOverCDP(endpoint, { headers }),
    pages: async browser => browser.contexts()[0].pages(),
    open: browser => browser.contexts()[0].newPage(),
    context: browser => browser.newContext(),
    choose: (input, file) => input.setInputFiles(file),
    intercept: (page, path, body) => page.route(`**${path}`, route => route.fulfill({ body })),
  },
};
const { attach, pages, open, context, choose, intercept } = DRIVERS[name.startsWith('puppeteer') ? 'puppeteer' : 'playwright'];

async function used(page, name) {
  const told = { evaluate: await page.evaluate(() => 6 * 7) };
  const exposed = [];
  await page.exposeFunction(`tell_${name}`, value => { exposed.push(value); });
  await page.evaluate(tell => window[tell]('from the page'), `tell_${name}`);
  const heard = new Promise(resolve => page.on('console', message => { if (message.text() === name) resolve(name); }));
  await page.evaluate(text => console.log(text), name);
  const intercepted = await page.evaluate(path => fetch(path).then(answer => answer.text()), `/${name}`);
  const screenshot = Buffer.from(await page.screenshot()).subarray(1, 4).toString();
  const half = await page.evaluate(text => text, '\ud83d alone');
  return { ...told, exposed, console: await heard, intercepted, screenshot, half };
}

async function chosen(page, file) {
  await page.evaluate(() => { document.body.innerHTML = '<input type=file>'; });
  await choose(await page.$('input'), file);
  return page.evaluate(() => document.querySelector('input').files[0].text());
}

const DO = {
  async alone({ name, file }) {
    const browser = await attach();
    const before = (await pages(browser)).length;
    const page = await open(browser);
    await intercept(page, `/${name}`, `to ${name}`);
    const told = await used(page, name);
    told.chosen = await chosen(page, file);
    await page.goto(home);
    told.reloaded = new URL(page.url()).origin === new URL(home).origin;
    told.elsewhere = await page.goto('file:///etc/passwd').then(() => 'went', error => String(error.message));
    told.pages = [before, (await pages(browser)).length];
    await page.close();
    told.closed = page.isClosed();
    told.again = await (await open(browser)).evaluate(() => 6 * 7);
    const mine = await context(browser);
    told.own = await (await mine.newPage()).evaluate(() => 1 + 1);
    await mine.close();
    await browser.close();
    return told;
  },
  async beside({ name }) {
    const browser = await attach();
    const [page] = await pages(browser);
    const told = await used(page, name);
    told.refused = await page.reload().then(() => 'reloaded', error => String(error.message));
    told.leave = () => browser.close();
    return told;
  },
};

let leave = async () => {};
const tell = told => console.log(JSON.stringify(told));
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...values } = JSON.parse(line);
  try {
    const told = await DO[what](values);
    leave = told.leave ?? leave;
    tell({ event: 'done', of: what, result: told });
  } catch (error) {
    tell({ event: 'failed', of: what, error: String(error?.stack ?? error) });
  }
}
await leave();
process.exit(0);
