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
    const splash = seen('#wa_web_initial_startup');

    return {
      url: text(() => location.href, 2048),
      app: sign(() => document.documentElement.id === 'whatsapp-web'),
      splash,
      qr: text(() => document.querySelector('[data-ref]').getAttribute('data-ref'), 1025),
      reload: seen('[data-ref] button'),
      panes: seen('#side, #pane-side, [data-testid="cell-frame-container"]'),
      progress: sign(() => [...document.querySelectorAll('progress')]
        .some(bar => bar.closest('#wa_web_initial_startup') === null)),
      use_here: seen('[data-testid="popup-controls-ok"]'),
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
    };
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

  // Clicks a button of the page's, in the world of its own; true if it was there.
  click(name) {
    const button = document.querySelector({ fresh_codes: '[data-ref] button' }[name]);
    button?.click();
    return button !== null;
  },
})
