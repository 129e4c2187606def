// What both players share: unpacking, the controls, the clock. The file of a player follows in the same module.

const ICONS = {
  play: "M4 2.5v11l9.5-5.5z",
  pause: "M4 2.5h3v11h-3zM9 2.5h3v11h-3z",
  back: "M12 2.5v11l-7-5.5zM3 2.5h1.6v11h-1.6z",
  forward: "M4 2.5v11l7-5.5zM11.4 2.5h1.6v11h-1.6z",
};

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function iconButton(icon, label, onclick) {
  const node = h("button", { type: "button", onclick });
  node.set = (icon, label) => {
    node.setAttribute("aria-label", label);
    node.title = label;
    node.innerHTML = `<svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d="${ICONS[icon]}" fill="currentColor"/></svg>`;
  };
  node.set(icon, label);
  return node;
}

function choice(label, options, value, onchange) {
  const list = h("select", { "aria-label": label, onchange: () => onchange(list.value) });
  for (const [key, text] of options) list.append(h("option", { value: key }, text));
  list.value = value;
  const node = h("label", {}, label, list);
  node.list = list;
  return node;
}

async function unpack(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A named picture of the stage. Its canvas has one pixel for a pixel of the frame; `zoom` only enlarges it on the screen.
function tile(name, width, height) {
  const canvas = h("canvas", { width, height, role: "img", "aria-label": name });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  const image = new ImageData(width, height);
  const pixels = image.data.fill(255);
  const note = h("div", { class: "framepred-note" });
  const frame = h("div", { class: "framepred-frame", style: `--w: ${width}` }, canvas);
  const node = h("figure", { class: "framepred-tile" }, h("figcaption", { title: name }, name), frame, note);
  return { name, node, frame, canvas, note, pixels, paint: () => context.putImageData(image, 0, 0) };
}

function paintGrey({ pixels, paint }, grey) {
  for (let i = 0, j = 0; i < grey.length; i++, j += 4) pixels[j] = pixels[j + 1] = pixels[j + 2] = grey[i];
  paint();
}

// Builds a player into `el`. `parts` is what makes it this player and no other:
//   label, views [[value, text]], choices [node]
//   tiles [tile], extras [node] after them, below [node] under the caption
//   tilesInLine, largest: the zoom lets so many tiles stand beside one another, and is at most this; both are functions
//     of whether the page is narrow
//   unpacked(bytes): a clip as `draw` wants it
//   draw(clip, frame): paint the tiles; returns the caption, and what else to say aloud
//   key(event): true if it was the player's own key
function createPlayer({ model, el }, parts) {
  const spec = model.get("_spec");
  const { frames, context, width } = spec;
  const last = frames - 1;
  let { speed, loop } = spec;
  let data = null;
  let playing = false;
  let due = 0;

  const slider = h("input", {
    type: "range", min: 0, max: last, step: 1, value: 0, "aria-label": "Frame", disabled: last === 0,
    oninput: () => go(Number(slider.value)),
  });
  const playButton = iconButton("play", "Play", () => play(!playing));
  const number = h("span", { class: "framepred-number" });
  const time = h("div", { class: "framepred-time" },
    iconButton("back", "Step back", () => step(-1)), playButton, iconButton("forward", "Step forward", () => step(1)),
    slider, number);
  const stage = h("div", { class: "framepred-stage", onclick: () => slider.focus({ preventScroll: true }) });
  stage.append(...parts.tiles.map((t) => t.node), ...(parts.extras ?? []));
  const caption = h("div", { class: "framepred-caption" });
  const live = h("div", { class: "framepred-live", "aria-live": "polite" });

  const loopBox = h("input", { type: "checkbox", onchange: () => (loop = loopBox.checked) });
  loopBox.checked = loop;
  const speeds = [...new Set([1, 2, 5, 10, 20, 30, 60, speed])].sort((a, b) => a - b);
  const view = choice("Show", parts.views, model.get("view"), (value) => put("view", value));
  const clips = model.get("_clips").map((_, i) => [i, `${i + 1} of ${model.get("_clips").length}`]);
  const clip = choice("Clip", clips, model.get("sample"), (value) => put("sample", Number(value)));
  const zoom = choice("Zoom", [...new Set([1, 2, 3, 4, 5, 6, 8, spec.zoom ?? 1])].sort((a, b) => a - b).map((z) => [z, `${z}×`]), 1, (value) => enlarge(Number(value)));
  const options = h("div", { class: "framepred-options" },
    ...(clips.length > 1 ? [clip] : []), view, ...(parts.choices ?? []),
    choice("Speed", speeds.map((s) => [s, `${s} fps`]), speed, (value) => (speed = Number(value))),
    zoom, h("label", {}, loopBox, "Loop"));
  const root = h("div", {
    class: "framepred", role: "group", "aria-label": parts.label, onkeydown: onKey, onkeyup: onKey,
    "data-lm-suppress-shortcuts": "", // keys are for the player, and not for Jupyter Lab
  }, stage, caption, ...(parts.below ?? []), time, options, live);

  // Where the context ends, on the slider's track: dashed before, solid after.
  if (context) root.style.setProperty("--split", `calc(8px + ${(context - 0.5) / last} * (100% - 16px))`);

  function put(name, value) {
    model.set(name, value);
    model.save_changes(); // in a live notebook: tell the kernel
  }

  function go(frame) {
    put("frame", Math.min(Math.max(frame, 0), last));
  }

  function step(by) {
    play(false);
    go(model.get("frame") + by);
  }

  function enlarge(factor) {
    zoom.list.value = factor;
    root.style.setProperty("--zoom", factor);
    show();
  }

  function play(on) {
    if (on === playing || (on && last === 0)) return;
    playing = on;
    playButton.set(on ? "pause" : "play", on ? "Pause" : "Play");
    if (!on) return show();
    if (model.get("frame") === last) go(0);
    due = performance.now() + 1000 / speed;
    requestAnimationFrame(tick);
  }

  function tick(now) {
    if (!playing) return;
    if (!root.isConnected) return play(false);
    if (now >= due - 2) {
      // One frame at a time, however late: a reader sees every frame.
      due = Math.max(due + 1000 / speed, now);
      const frame = model.get("frame");
      if (frame < last) go(frame + 1);
      else if (loop) go(0);
      else return play(false);
    }
    requestAnimationFrame(tick);
  }

  function onKey(event) {
    const target = event.target;
    // Except with Ctrl: one can save the notebook from here.
    root.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
    if (event.type === "keyup") return;
    if (event.ctrlKey || event.altKey || event.metaKey || target.matches("select")) return;
    if (parts.key?.(event)) show();
    else if (event.shiftKey) return;
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "Home") step(-frames);
    else if (event.key === "End") step(frames);
    else if (event.key === " " && !target.matches("button, [type=checkbox]")) play(!playing);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function show() {
    const frame = model.get("frame");
    slider.value = frame;
    const phase = !context ? "" : frame < context ? "context" : "predicted";
    root.classList.toggle("framepred-in-context", phase === "context");
    number.textContent = `${frame + 1} / ${frames}`;
    slider.setAttribute("aria-valuetext", `frame ${frame + 1} of ${frames}${phase && `, ${phase}`}`);
    view.list.value = model.get("view");
    clip.list.value = model.get("sample");
    if (!data) return;
    const said = parts.draw(data, frame);
    caption.textContent = [phase && phase[0].toUpperCase() + phase.slice(1) + ".", said.caption].filter(Boolean).join(" ");
    // The slider speaks for itself; while playing, silence.
    if (!playing && root.ownerDocument.activeElement !== slider)
      live.textContent = [slider.getAttribute("aria-valuetext"), ...said.aloud].join("; ");
  }

  async function load() {
    const sample = model.get("sample");
    const unpacked = parts.unpacked(await unpack(model.get("_clips")[sample]));
    if (sample !== model.get("sample")) return; // another was picked meanwhile
    data = unpacked;
    show();
    root.dataset.ready = sample;
  }

  function onSample() {
    delete root.dataset.ready;
    load();
  }

  el.append(root);
  model.on("change:frame", show);
  model.on("change:view", show);
  model.on("change:sample", onSample);
  const room = Math.min(el.clientWidth || 640, 960);
  const narrow = room < 500;
  const each = room / parts.tilesInLine(narrow) - 12;
  enlarge(spec.zoom ?? Math.min(Math.max(Math.floor(each / width), 1), parts.largest(narrow)));
  load().then(() => {
    if (spec.autoplay && !matchMedia("(prefers-reduced-motion: reduce)").matches) play(true);
  });
  return {
    show,
    close() {
      play(false);
      model.off("change:frame", show);
      model.off("change:view", show);
      model.off("change:sample", onSample);
    },
  };
}

