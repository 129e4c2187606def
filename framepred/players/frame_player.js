// --- FramePlayer -----------------------------------------------------------------------------------------------------

const FramePlayer = {
  name: "FramePlayer",

  render({ model, el }) {
    const { rows, width, height, context, nats, truth: first } = model.get("_spec");
    const size = width * height;
    const tiles = rows.map((name) => tile(name, width, height));
    let truth = first;

    function paint({ pixels, paint }, view, t, p) {
      for (let i = 0, j = 0; i < size; i++, j += 4) {
        if (view === "overlay") {
          pixels[j] = Math.max(t[i], p[i]);
          pixels[j + 1] = pixels[j + 2] = t[i];
        } else pixels[j] = pixels[j + 1] = pixels[j + 2] = Math.abs(t[i] - p[i]);
      }
      paint();
    }

    // A clip is (frames, rows, height, width), one byte a pixel.
    function draw(clip, frame) {
      const picture = (row) => clip.subarray((frame * rows.length + row) * size, (frame * rows.length + row + 1) * size);
      const view = model.get("view");
      const aloud = [];
      tiles.forEach((tile, row) => {
        if (view === "frames" || row === truth) paintGrey(tile, picture(row));
        else paint(tile, view, picture(truth), picture(row));
        const error = nats[tile.name]?.[model.get("sample")][frame - context];
        tile.note.textContent = error == null ? "" : `${error.toFixed(1)} nats`;
        if (error != null) aloud.push(`${tile.name}: ${tile.note.textContent}`);
      });
      const caption = {
        frames: "",
        overlay: `White: ${rows[truth]}. Red: where a prediction leaves it.`,
        difference: `Absolute difference from ${rows[truth]}.`,
      }[view];
      return { caption, aloud };
    }

    const views = [["frames", "frames"], ["overlay", "overlay"], ["difference", "difference"]];
    const truths = choice("Truth", rows.map((name, i) => [i, name]), truth, (value) => {
      truth = Number(value);
      player.show();
    });
    const several = rows.length > 1;
    const player = createPlayer({ model, el }, {
      label: `Frame player: ${rows.join(", ")}`,
      views: several ? views : views.slice(0, 1), choices: several ? [truths] : [],
      tiles, draw, unpacked: (bytes) => bytes,
      tilesInLine: (narrow) => Math.min(rows.length, narrow ? 2 : 8), largest: () => 3,
    });
    if (Object.keys(nats).length) el.firstChild.classList.add("framepred-with-notes");
    return player.close;
  },
};

export default FramePlayer;
