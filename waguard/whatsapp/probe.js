// What is to be seen on WhatsApp Web, as small plain data; `page.py` decides what it means and trusts none of it.
// Made for the builds of 2026. Every selector and module name of the page stands here and nowhere else, so that a
// file given as `whatsapp.probe` can follow a change of the page. One expression, an object of functions.
({
  // Looks, and never throws. In a world of its own: it has the document, and nothing of the page's scripts, which may
  // have replaced anything that is called here.
  signs() {
    const sign = look => {
      try {
        return look();
      } catch {
        return null;
      }
    };
    const text = (look, most) => sign(() => {
      const value = look();
      return typeof value === 'string' ? value.slice(0, most) : null;
    });
    const seen = selector => sign(() => document.querySelector(selector) !== null);
    const dialog = sign(() => this.dialog()?.kind ?? null);
    const ok = seen('[data-testid="popup-controls-ok"]');
    const splash = seen('#wa_web_initial_startup');

    return {
      url: text(() => location.href, 2048),
      app: sign(() => document.documentElement.id === 'whatsapp-web'),
      splash,
      qr: text(() => document.querySelector('[data-ref]').getAttribute('data-ref'), 1025),
      reload: seen('[data-ref] button'),
      pairing: seen('[data-link-code]'),
      panes: seen('#side, #pane-side, [data-testid="cell-frame-container"]'),
      progress: sign(() => [...document.querySelectorAll('progress')]
        .some(bar => bar.closest('#wa_web_initial_startup') === null)),
      dialog,
      // Every dialog may have that button.
      use_here: dialog === 'use_here' || (ok && (dialog === null || dialog === 'unknown')),
      // The page for refused browsers is small, shows no splash, and names the browser it wants.
      refused: sign(() => splash === false && document.readyState !== 'loading'
        && (document.querySelector('.version-title, a[href*="google.com/chrome"]') !== null
          || (document.getElementsByTagName('*').length < 200
            && /works with Google Chrome|update (Google )?Chrome/i.test(document.body.innerText)))),
      wid: text(() => localStorage.getItem('last-wid-md'), 64),
      logged_in: sign(() => ['last-wid-md', 'WANoiseInfo'].every(mark => localStorage.getItem(mark) !== null)),
      storage_error: sign(() => {
        try {
          localStorage.length;
          return null;
        } catch (error) {
          return String(error.name).slice(0, 64);
        }
      }),
      online: sign(() => navigator.onLine !== false),
      // Whether the document is whole, what was answered for it, and how far it has come.
      ready: text(() => document.readyState, 64),
      status: sign(() => performance.getEntriesByType('navigation')[0].responseStatus),
      error: text(() => location.protocol === 'chrome-error:' && /ERR_[A-Z_]+/.exec(document.body.innerText)[0], 64),
      bar: sign(() => document.querySelector('progress').value),
      resources: sign(() => performance.getEntriesByType('resource').length),
    };
  },

  // The dialog that lies over everything, and its kind: the first of those that are known, by the words of some languages.
  // What it says stays here, as it may be of somebody's chats.
  dialog() {
    const about = words => new RegExp(words.source.replaceAll('KEY', '(?:passkey|(?:clave|llave) de acceso|chave de acesso)'), 'is');
    const kinds = Object.entries({
      use_here: /use here|usar aqu[ií]/,
      whats_new: /what[’']s new|novedades|novidades/,
      passkey_confirmation: /confirm.{0,80}KEY|KEY.{0,80}confirm/,
      passkey_required: /KEY/,
      restricted: /account.{0,40}restricted|cuenta.{0,40}restringida|conta.{0,40}restrita|limit of new chats|l[ií]mite de (?:nuevos chats|novas conversas)/,
      update: /update.{0,40}available|actualizaci[oó]n.{0,40}disponible|atualiza[cç][aã]o.{0,40}dispon[ií]vel/,
    });
    const over = [...document.querySelectorAll('[role="dialog"], [role="alertdialog"], [aria-modal="true"], dialog[open]')]
      .slice(0, 16)
      .filter(one => one.checkVisibility())
      .map(element => {
        const said = element.innerText.slice(0, 2000);
        return { element, kind: kinds.find(([, words]) => about(words).test(said))?.[0] ?? 'unknown' };
      });
    return over.find(({ kind }) => kind !== 'unknown') ?? over[0] ?? null;
  },

  // What only the page's own world knows, looked at there after the signs. The page may have replaced everything that has a
  // name: nothing is called but its `require`, and what comes of that is a short text or a flag, or it is nothing. No answer of the
  // page's can be long.
  words(splash) {
    const word = look => {
      try {
        const value = look();
        return typeof value === 'string' && value.length <= 64 ? value : null;
      } catch {
        return null;
      }
    };
    const part = (name, its) => {
      try {
        return window.require(name)[its];
      } catch {
        return null;
      }
    };
    const is = look => {
      try {
        return look() === true;
      } catch {
        return null;
      }
    };
    const version = word(() => window.Debug.VERSION);
    // Asked for earlier, a module would be made before the app makes it.
    const booted = version !== null || splash === false;
    const socket = booted ? part('WAWebSocketModel', 'Socket') : null;
    const stream = booted ? part('WAWebStreamModel', 'Stream') : null;
    const conn = booted ? part('WAWebConnModel', 'Conn') : null;

    return {
      version,
      state: word(() => socket.state),
      stream: word(() => socket.stream),
      synced: is(() => socket.hasSynced),
      mode: word(() => stream.mode),
      push_name: word(() => conn.pushname),
      storage_error: word(() => window.indexedDB ? null : 'indexedDB'),
    };
  },

  // Asks for the code by which the phone with this number is linked, in the page's own world: of the promise comes the code, or why
  // there is none, each a short text.
  async pairing(phone) {
    const word = value => typeof value === 'string' && value.length <= 64 ? value : '';
    try {
      const api = window.require('WAWebAltDeviceLinkingApi');
      api.setPairingType('ALT_DEVICE_LINKING');
      await api.initializeAltDeviceLinking();
      return { code: word(await api.startAltLinkingFlow(phone, true)) };
    } catch (error) {
      return { refused: word(error.message) };
    }
  },

  // What a client of the page's may have missed: the call by which it listens for that has the one text in it, and has exposed the function
  // before, as one of these bindings. One line of JSON, since the relay reads it.
  missable: {"listens": "change:hasSynced", "bindings": ["onAppStateHasSyncedEvent", "puppeteer_onAppStateHasSyncedEvent"]},

  // Whether it has happened, in the page's own world; if so, calls the client's function when asked to say it.
  missed(say) {
    const synced = window.require('WAWebSocketModel').Socket.hasSynced === true;
    if (synced && say) window.onAppStateHasSyncedEvent();
    return synced;
  },

  // Clicks a button of the page's, in the world of its own; true if it was there.
  click(name) {
    const buttons = {
      fresh_codes: () => document.querySelector('[data-ref] button'),
      // One that is known to be harmless, and no other.
      notice: () => {
        const { element, kind } = this.dialog() ?? {};
        if (!['whats_new', 'update'].includes(kind)) return null;
        const only = element.querySelectorAll('button, [role="button"]');
        return element.querySelector('[data-testid="popup-controls-ok"]') ?? (only.length === 1 ? only[0] : null);
      },
    };
    const button = buttons[name]();
    button?.click();
    return button !== null;
  },
})
