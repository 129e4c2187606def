// --- FlowPlayer ------------------------------------------------------------------------------------------------------

// Hue for the direction, saturation for the length up to `reach`: as `colours` in flow_player.py.
function flowColour(x, y, reach, pixels, at) {
  const strength = Math.min(Math.hypot(x, y) / reach, 1);
  const turn = Math.atan2(y, x) / (Math.PI / 3);
  for (let c = 0; c < 3; c++) {
    const k = (5 - 2 * c + turn + 6) % 6;
    pixels[at + c] = Math.round(255 * (1 - strength * Math.min(Math.max(Math.min(k, 4 - k), 0), 1)));
  }
}

// What each colour means: all directions around, standing still in the middle, `reach` pixels at the rim.
function colourWheel(reach) {
  const size = 96;
  const radius = size / 2;
  const canvas = h("canvas", { width: size, height: size, role: "img", "aria-label": "Colour wheel: hue is direction" });
  const image = new ImageData(size, size);
  for (let j = 0; j < size * size; j++) {
    const x = (j % size) + 0.5 - radius;
    const y = Math.floor(j / size) + 0.5 - radius;
    flowColour((x / radius) * reach, (y / radius) * reach, reach, image.data, 4 * j);
    image.data[4 * j + 3] = Math.hypot(x, y) <= radius ? 255 : 0;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return h("figure", { class: "framepred-tile framepred-wheel" },
    h("figcaption", {}, "legend"), canvas, h("div", {}, `rim: ${reach.toFixed(1)} px`));
}

const FlowPlayer = {
  name: "FlowPlayer",

  render({ model, el }) {
    const { rows, width, height, frames, step, reach, every } = model.get("_spec");
    const size = width * height;
    const tiles = {};
    for (const name of ["frames", "motion", ...rows.slice(1)]) tiles[name] = tile(name, width, height);
    const wheel = colourWheel(reach);
    const overlay = h("canvas", { class: "framepred-arrows", "aria-hidden": "true" });
    const pen = overlay.getContext("2d");
    tiles.frames.frame.append(overlay);
    const cross = { x: width >> 1, y: height >> 1, on: false }; // the pixel whose vector is told
    let motion = null;

    // A clip is (frames, rows, height, width) grey values, then the motion's differences along each line, in steps:
    // all low bytes, then all high bytes.
    function unpacked(bytes) {
      const low = frames * rows.length * size;
      const n = frames * 2 * size;
      const vectors = new Int16Array(n);
      for (let i = 0; i < n; i++) {
        const difference = bytes[low + i] | (bytes[low + n + i] << 8);
        vectors[i] = i % width ? vectors[i - 1] + difference : difference; // wraps at 16 bits, as it should
      }
      return { bytes, vectors };
    }

    function draw({ bytes, vectors }, frame) {
      rows.forEach((name, row) => {
        paintGrey(tiles[name], bytes.subarray((frame * rows.length + row) * size, (frame * rows.length + row + 1) * size));
      });
      const start = frame * 2 * size;
      motion = (i) => [vectors[start + i] * step, vectors[start + size + i] * step];
      for (let i = 0; i < size; i++) flowColour(...motion(i), reach, tiles.motion.pixels, 4 * i);
      tiles.motion.paint();

      const view = model.get("view");
      tiles.motion.node.hidden = wheel.hidden = view !== "colour";
      for (const name of rows.slice(1)) tiles[name].node.hidden = view !== "warped";
      drawOverlay(view === "arrows");
      const caption = {
        arrows: "Arrows: from where a pixel was to where it goes.",
        colour: "Hue: direction. Strength: distance. White: at rest.",
        warped: "Warped: the frame as the flow moves it.",
      }[view];
      const [x, y] = motion(cross.y * width + cross.x);
      const told = `Motion into pixel (${cross.x}, ${cross.y}): (${signed(x)}, ${signed(y)}) px`;
      probe.textContent = cross.on ? told : "Point at a pixel, or press Shift+arrows, to read its vector.";
      return { caption, aloud: cross.on ? [told] : [] };
    }

    const signed = (x) => (x < -0.05 ? "−" : x >= 0.05 ? "+" : "") + Math.abs(x).toFixed(1);

    // At the resolution of the screen, not of the frame: these are lines, and no pixels of the data.
    function drawOverlay(arrows) {
      const scale = (overlay.clientWidth || width) / width;
      const dense = Math.max(globalThis.devicePixelRatio ?? 1, 1);
      overlay.width = Math.round(width * scale * dense);
      overlay.height = Math.round(height * scale * dense);
      pen.scale(scale * dense, scale * dense); // from here on, in pixels of the frame
      pen.lineCap = pen.lineJoin = "round";
      const path = new Path2D();
      for (let py = every >> 1; arrows && py < height; py += every)
        for (let px = every >> 1; px < width; px += every) {
          const [x, y] = motion(py * width + px);
          const length = Math.hypot(x, y);
          if (length < 0.25) continue;
          const tip = Math.min(1.5, length / 2) / length;
          path.moveTo(px + 0.5 - x, py + 0.5 - y);
          path.lineTo(px + 0.5, py + 0.5);
          for (const side of [-0.6, 0.6]) {
            path.moveTo(px + 0.5 - tip * (x + side * y), py + 0.5 - tip * (y - side * x));
            path.lineTo(px + 0.5, py + 0.5);
          }
        }
      if (cross.on) path.rect(cross.x - 0.5, cross.y - 0.5, 2, 2);
      for (const [colour, thick] of [["#000", 3], ["#ffb000", 1.25]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = thick / scale;
        pen.stroke(path);
      }
    }

    function point(event) {
      const box = event.currentTarget.getBoundingClientRect();
      cross.x = clamp(Math.floor(((event.clientX - box.left) / box.width) * width), width);
      cross.y = clamp(Math.floor(((event.clientY - box.top) / box.height) * height), height);
      cross.on = true;
      player.show();
    }

    const clamp = (i, n) => Math.min(Math.max(i, 0), n - 1);

    function key(event) {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!move || !event.shiftKey) return false;
      cross.x = clamp(cross.x + move[0], width);
      cross.y = clamp(cross.y + move[1], height);
      return (cross.on = true);
    }

    for (const { frame } of Object.values(tiles)) {
      frame.addEventListener("pointermove", point);
      frame.addEventListener("pointerdown", point);
    }
    const probe = h("div", { class: "framepred-caption framepred-probe" });
    const player = createPlayer({ model, el }, {
      label: "Flow player",
      views: [["arrows", "arrows"], ["colour", "colours"], ["warped", "warped"]],
      tiles: Object.values(tiles), extras: [wheel], below: [probe],
      draw, unpacked, key, tilesInLine: (narrow) => (narrow ? 1 : rows.length), largest: (narrow) => (narrow ? 3 : 4),
    });
    new ResizeObserver(player.show).observe(overlay); // arrows are drawn at the size on the screen
    return player.close;
  },
};

export default FlowPlayer;
