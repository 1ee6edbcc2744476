// What is to be seen on WhatsApp Web, as small plain data; `page.py` decides what it means and trusts none of it.
// Made for the builds of 2026. Every selector and module name of the page stands here and nowhere else, so that a
// file given as `whatsapp.probe` can follow a change of the page. One expression; looks only, and never throws.
(() => {
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
  const version = text(() => window.Debug.VERSION, 64);
  // Asked for earlier, a module would be made before the app makes it.
  const booted = version !== null || splash === false;
  const module = (name, part) => booted ? sign(() => window.require(name)[part]) : null;
  const socket = module('WAWebSocketModel', 'Socket');
  const stream = module('WAWebStreamModel', 'Stream');

  return {
    url: text(() => location.href, 2048),
    title: text(() => document.title, 128),
    app: sign(() => document.documentElement.id === 'whatsapp-web'),
    version,
    splash,
    state: text(() => socket.state, 64),
    stream: text(() => socket.stream, 64),
    synced: sign(() => socket.hasSynced === true),
    mode: text(() => stream.mode, 64),
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
    logged_in: sign(() => ['last-wid-md', 'WANoiseInfo'].every(mark => localStorage.getItem(mark) !== null)),
    storage_error: sign(() => {
      try {
        localStorage.length;
        return window.indexedDB ? null : 'indexedDB';
      } catch (error) {
        return String(error.name).slice(0, 64);
      }
    }),
    online: sign(() => navigator.onLine !== false),
  };
})()
