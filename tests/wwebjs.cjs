// An unmodified whatsapp-web.js that logs in: its QR codes go to the simulator's phone. Run by test_wwebjs.py.
'use strict';
const [,, modules, simulator, dataPath, executablePath, ...flags] = process.argv;
const { Client, LocalAuth } = require(`${modules}/whatsapp-web.js`);

const client = new Client({
  authStrategy: new LocalAuth({ clientId: 'demo', dataPath }),
  // The page refuses a browser whose client hints say that it is headless, and whatsapp-web.js leaves them as they are.
  puppeteer: { executablePath, args: ['--no-sandbox', '--disable-features=UserAgentClientHint', ...flags] },
});
client.on('qr', code => fetch(`${simulator}phone/scan`, { method: 'POST', body: code }));
client.on('authenticated', async () => {
  await client.destroy();
  console.log('authenticated');
  process.exit(0);
});
client.initialize().catch(() => {}); // it wants modules of the page that the simulator does not have, once it is logged in
