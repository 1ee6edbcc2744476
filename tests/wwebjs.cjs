// An unmodified whatsapp-web.js that tells what it sees and does what it is told, a line of JSON each. Run by bots.py.
'use strict';
const [,, modules, options] = process.argv;
const { Client, LocalAuth, MessageMedia } = require(`${modules}/whatsapp-web.js`);
const { dataPath, puppeteer } = JSON.parse(options);

const tell = (event, values = {}) => console.log(JSON.stringify({ event, ...values }));
const plain = ({ id, body, from, to, type, hasMedia, fromMe }) => ({ id: id._serialized, body, from, to, type, hasMedia, fromMe });
const client = new Client({ authStrategy: new LocalAuth({ clientId: 'demo', dataPath }), puppeteer });
const inject = client.inject.bind(client);
client.inject = async () => {
  await inject();
  tell('listens'); // after which no event of the page's is missed
};
client.on('qr', text => tell('qr', { text }));
for (const name of ['authenticated', 'ready', 'disconnected', 'auth_failure', 'change_state', 'loading_screen']) {
  client.on(name, said => tell(name, { said: typeof said === 'string' ? said : null }));
}
client.on('message', message => tell('message', plain(message)));
client.on('message_create', message => { if (message.fromMe) tell('created', plain(message)); });
client.on('message_ack', (message, ack) => tell('ack', { id: message.id._serialized, ack }));
// Of its own: it looks at pages that have gone.
process.on('unhandledRejection', error => tell('unhandled', { error: String(error?.stack ?? error) }));

const received = id => client.getMessageById(id);
const DO = {
  code: async ({ phone }) => client.requestPairingCode(phone),
  send: async ({ to, body }) => plain(await client.sendMessage(to, body)),
  media: async ({ to, mimetype, data, filename, options: how }) =>
    plain(await client.sendMessage(to, new MessageMedia(mimetype, data, filename), how)),
  reply: async ({ id, body }) => plain(await (await received(id)).reply(body)),
  download: async ({ id }) => ({ ...await (await received(id)).downloadMedia() }),
  quoted: async ({ id }) => plain(await (await received(id)).getQuotedMessage()),
  chats: async () => (await client.getChats()).map(({ id, name, unreadCount, lastMessage }) =>
    ({ id: id._serialized, name, unreadCount, last: lastMessage?.body })),
  fetch: async ({ chat, limit }) => (await (await client.getChatById(chat)).fetchMessages({ limit })).map(plain),
  contact: async ({ id }) => {
    const { pushname, number, isMe } = await (await received(id)).getContact();
    return { pushname, number, isMe };
  },
  seen: async ({ chat }) => client.sendSeen(chat),
  typing: async ({ chat }) => (await client.getChatById(chat)).sendStateTyping(),
  registered: async ({ id }) => client.isRegisteredUser(id),
  state: async () => client.getState(),
  info: async () => ({ wid: client.info.wid._serialized, pushname: client.info.pushname, platform: client.info.platform }),
  many: async ({ to, bodies }) => {
    let last;
    for (const body of bodies) last = await client.sendMessage(to, body);
    return plain(last); // which is sent a moment after it is in the chat, as all are
  },
  destroy: async () => client.destroy(),
  logout: async () => client.logout(),
};
require('node:readline').createInterface({ input: process.stdin }).on('line', async line => {
  const asked = JSON.parse(line);
  try {
    tell('done', { of: asked.do, result: await DO[asked.do](asked) ?? null });
  } catch (error) {
    tell('failed', { of: asked.do, error: String(error?.stack ?? error) });
  }
}).on('close', async () => {
  await client.destroy().catch(() => {}); // it may have done so already
  process.exit(0);
});
client.initialize().then(() => tell('initialized'), error => tell('failed', { of: 'initialize', error: String(error?.stack ?? error) }));
