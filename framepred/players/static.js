
// In a page without a kernel: the state lies beside the player, and stays there.
function pageModel(state) {
  const listeners = {};
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const listener of [...(listeners[`change:${name}`] ?? [])]) listener();
    },
    save_changes() {},
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: (event, listener) => (listeners[event] = (listeners[event] ?? []).filter((l) => l !== listener)),
  };
}

// Every player brings this script, and each run starts one of them: each carries its own data, so any order will do.
function start(player) {
  const box = document.querySelector(`.framepred-static[data-player="${player.name}"]:not([data-started])`);
  if (!box || !("DecompressionStream" in globalThis)) return; // the picture stays
  box.dataset.started = "";
  const state = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
  box.querySelectorAll("script, img, p").forEach((node) => node.remove());
  const el = box.appendChild(document.createElement("div"));
  player.render({ model: pageModel(state), el });
}

