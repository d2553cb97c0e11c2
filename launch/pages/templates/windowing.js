// Draws images of 16 bits through a window of their values: centre and width. Nothing is loaded.
(() => {
  const scale = JSON.parse(document.getElementById("value-scale").textContent);
  const span = scale.greatest - scale.least;
  const pause = document.getElementById("pause");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const inputs = (name) => [document.getElementById(name), document.getElementById(name + "-slider")];
  const [centres, widths] = [inputs("centre"), inputs("width")];
  const slice = document.getElementById("slice");
  const grids = [];
  let centre = scale.least + span / 2;
  let width = span;
  let frame = 0;

  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const view = new DataView(await new Response(stream).arrayBuffer());
    return Uint16Array.from({ length: view.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true));
  }

  function draw() {
    const low = centre - width / 2;
    const levels = new Uint8ClampedArray(65536);
    for (let i = 0; i < 65536; i++) levels[i] = Math.round((255 * (scale.least + (span * i) / 65535 - low)) / width);
    for (const { canvas, values, channels } of grids) {
      const plane = canvas.width * canvas.height;
      const context = canvas.getContext("2d");
      const picture = context.createImageData(canvas.width, canvas.height);
      const start = frame * channels * plane;
      for (let i = 0; i < plane; i++) {
        for (let c = 0; c < 3; c++) picture.data[4 * i + c] = levels[values[start + (channels === 1 ? 0 : c) * plane + i]];
        picture.data[4 * i + 3] = 255;
      }
      context.putImageData(picture, 0, 0);
    }
  }

  function show() {
    for (const input of centres) input.value = rounded(centre);
    for (const input of widths) input.value = rounded(width);
    if (slice) slice.value = frame + 1;
    draw();
  }

  function rounded(value) {
    return Number(value.toPrecision(5));
  }

  /** Has the window hold all but the least and the greatest hundredth of the values. */
  function fit() {
    centre = (scale.low + scale.high) / 2;
    width = scale.high - scale.low;
    show();
  }

  function listen([number, slider], take) {
    for (const input of [number, slider])
      input.addEventListener("input", () => {
        if (input.value === "" || !Number.isFinite(Number(input.value))) return;
        take(Number(input.value));
        const other = input === number ? slider : number;
        other.value = input.value;
        draw();
      });
  }

  async function begin() {
    for (const canvas of document.querySelectorAll("canvas[data-values]"))
      grids.push({ canvas, channels: Number(canvas.dataset.channels), values: await unpacked(canvas.dataset.values) });
    for (const { canvas } of grids) {
      canvas.hidden = false;
      canvas.previousElementSibling.hidden = true;
    }
    document.getElementById("window").hidden = false;
    listen(centres, (value) => (centre = value));
    listen(widths, (value) => (width = Math.max(value, span / 65535)));
    document.getElementById("window-fit").addEventListener("click", fit);
    document.getElementById("window-all").addEventListener("click", () => {
      [centre, width] = [scale.least + span / 2, span];
      show();
    });
    if (slice) {
      slice.addEventListener("input", () => {
        frame = Number(slice.value) - 1;
        pause.checked = !calm.matches;
        draw();
      });
      setInterval(() => {
        if (pause.checked !== calm.matches) return;
        frame = (frame + 1) % Number(slice.max);
        slice.value = frame + 1;
        draw();
      }, 125);
    }
    show();
  }

  begin().catch(() => {}); // a browser without streams that inflate shows the pictures of 8 bits
})();
