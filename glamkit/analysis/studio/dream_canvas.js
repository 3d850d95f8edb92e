// Draws what the kernel sends and tells it which keys are held; it decides nothing.
//   kernel -> page  {t: "f", n, w, h, lines, bars, keys} + one buffer of w * h * 3 bytes;  {t: "pong"}
//   page -> kernel  {t: "ready"} once drawn;  {t: "ack", n} for each frame;  {t: "k", down: [...codes]} on a change;  {t: "ping"}
// Text from the kernel is only ever put in as text, never as markup.

const SIDE = 384; // pixels of the page that a picture takes at least
const PATIENCE = 6000; // ms without an answer after which the page says so
const SILENT = "No answer from the kernel: it is busy with another cell, or closed. If it is closed, run this notebook again.";

function part(tag, parent, style, text) {
  const element = document.createElement(tag);
  element.style.cssText = style || "";
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}

function drawBars(box, bars) {
  box.replaceChildren();
  for (const [name, share, chosen] of bars) {
    const row = part("div", box, "display:flex;align-items:center;gap:6px;height:18px");
    part("span", row, "width:110px;text-align:right;overflow:hidden;white-space:nowrap;" + (chosen ? "font-weight:bold" : ""), name);
    const track = part("div", row, "width:150px;height:10px;background:#e8e8e8");
    part("div", track, `height:10px;background:${chosen ? "#E69F00" : "#0072B2"};width:${Math.round(150 * share)}px`);
    part("span", row, "", `${Math.round(100 * share)} %`);
  }
}

function render({ model, el }) {
  const root = part("div", el, "display:flex;gap:16px;flex-wrap:wrap;font:13px sans-serif");
  root.className = "glamkit-dream";
  const left = part("div", root);
  const canvas = part("canvas", left, `width:${SIDE}px;height:${SIDE}px;image-rendering:pixelated;background:#ccc;outline-offset:2px;cursor:pointer`);
  canvas.tabIndex = 0;
  canvas.title = "Click here to play with the keyboard";
  // JupyterLab leaves keys alone that are pressed inside an element marked so.
  canvas.setAttribute("data-lm-suppress-shortcuts", "true");
  const hint = part("div", left, "color:#555;max-width:384px");
  hint.className = "glamkit-keys";
  const right = part("div", root, "min-width:300px");
  const warning = part("div", right, "color:#D55E00;font-weight:bold;max-width:340px");
  warning.className = "glamkit-warning";
  const lines = part("div", right, "white-space:pre;line-height:1.5;font-family:monospace");
  lines.className = "glamkit-lines";
  part("div", right, "margin-top:8px;color:#555", "policy");
  const bars = part("div", right);
  bars.className = "glamkit-policy";

  let newest = null;
  let waiting = false;
  let heard = performance.now();
  let asked = 0;
  const down = new Set();

  function draw() {
    waiting = false;
    const { said, bytes } = newest;
    const { w, h } = said;
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const image = new ImageData(w, h);
    for (let from = 0, to = 0; from < w * h * 3; from += 3, to += 4) {
      image.data[to] = bytes[from];
      image.data[to + 1] = bytes[from + 1];
      image.data[to + 2] = bytes[from + 2];
      image.data[to + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    lines.textContent = said.lines.join("\n");
    hint.textContent = said.keys;
    drawBars(bars, said.bars);
    root.dataset.n = said.n; // what a test waits for
    model.send({ t: "ack", n: said.n });
  }

  function hear(said, buffers) {
    heard = performance.now();
    asked = 0;
    warning.textContent = "";
    if (said.t !== "f") return;
    const view = buffers[0];
    newest = { said, bytes: new Uint8Array(view.buffer, view.byteOffset, view.byteLength) };
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(draw);
    }
  }

  function held() {
    model.send({ t: "k", down: [...down] });
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.code === "Tab") return;
    event.preventDefault();
    event.stopPropagation();
    const known = down.has(event.code);
    if (event.type === "keydown") down.add(event.code);
    else down.delete(event.code);
    if (known !== down.has(event.code)) held();
  }

  function release() {
    if (down.size === 0) return;
    down.clear();
    held();
  }

  // One question at a time: a kernel that is busy answers it when it is free.
  const watch = setInterval(() => {
    const now = performance.now();
    if (asked && now - asked > PATIENCE) warning.textContent = SILENT;
    if (!asked && now - heard > PATIENCE / 2) {
      asked = now;
      try {
        model.send({ t: "ping" });
      } catch {
        warning.textContent = SILENT; // a closed kernel takes no messages at all
      }
    }
  }, 500);

  model.on("msg:custom", hear);
  canvas.addEventListener("keydown", press);
  canvas.addEventListener("keyup", press);
  canvas.addEventListener("blur", release);
  canvas.addEventListener("click", () => canvas.focus());
  model.send({ t: "ready" });
  return () => {
    clearInterval(watch);
    model.off("msg:custom", hear);
  };
}

export default { render };
