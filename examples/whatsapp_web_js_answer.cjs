// A bot as it was before waguard, but for one line: it answers !ping.
//   npm install whatsapp-web.js
//   WAGUARD_TOKEN=$(waguard token demo) node whatsapp_web_js_answer.cjs
'use strict';
const { Client, LocalAuth } = require('whatsapp-web.js');

const [,, endpoint = 'ws://127.0.0.1:8717/v1/sessions/demo/cdp'] = process.argv;
const headers = { Authorization: `Bearer ${process.env.WAGUARD_TOKEN}` };

const client = new Client({
  authStrategy: new LocalAuth({ clientId: 'demo' }), // may stay, and keeps nothing any more
  puppeteer: { browserWSEndpoint: endpoint, headers }, // CHANGED, was: puppeteer: { args: ['--no-sandbox'] },
});

client.on('qr', qr => console.log('qr', qr)); // or: waguard connect demo
client.on('ready', () => console.log('ready', client.info.wid._serialized));
client.on('disconnected', reason => console.log('disconnected', reason));
client.on('message', async message => {
  if (message.body === '!ping') await message.reply('pong');
});

process.once('SIGINT', async () => {
  await client.destroy(); // lets go of the page; browser and login stay
  process.exit(0);
});
client.initialize();
