// Draws what the kernel sends and passes on what was pressed; it decides nothing.
//   traits          controls, what_if
//   kernel -> page  {t: "f", n, state, beside} + one buffer of side * side * 3 bytes for each picture;  {t: "pong"}
//   page -> kernel  {t: "ready"} once drawn;  {t: "ack", n} for each frame;  {t: "ping"}
//                   {t: "do", command, values, named}
// Text from the kernel is only ever put in as text, never as markup.

const PATIENCE = 6000; // ms without an answer after which the page says so
const BUSY = "No answer from the kernel: it is busy with another cell. The studio answers when that has ended.";
const CLOSED = "No answer from the kernel: it was closed or restarted. Run all cells again.";
const HINTS = {
  step: "Steps into the dream; step 0 is predicted from the last real frame",
  action: "The action that led to this picture",
  reward: "Predicted reward of that action",
  return: "Sum of the predicted rewards since step 0",
  value: "Discounted rewards that the critic expects from here on",
  end: "Predicted probability that this action ended a life or the game; above 50% the dream ends here",
};
const WHO = {
  policy: ["the policy", "The trained policy plays while the clock runs"],
  you: ["you", "The keys that you hold are played while the clock runs"],
  recorded: ["recorded actions", "The actions that were really taken in the game are taken again"],
};
const TEMPERATURES = [0.25, 0.5, 0.7, 1, 1.4, 2, 4];
const BESIDE = {
  real: "Shows the real frame of the same step; the recorded actions are taken, so that it can be compared",
  lmamba: "Shows the same dream without LMamba: the same actions and random numbers, GMamba alone",
  gmamba: "Shows the same dream without GMamba: the same actions and random numbers, LMamba alone",
};

function make(tag, parent, name, text, more = {}) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(more)) element.setAttribute(key, value);
  if (parent) parent.appendChild(element);
  return element;
}

function paint(canvas, bytes) {
  const side = Math.sqrt(bytes.length / 3);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  image.data.fill(255);
  bytes.forEach((byte, from) => (image.data[from + Math.floor(from / 3)] = byte));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// The parts that do not change, and functions that fill in those that do.
function build(root, info, ask) {
  const ui = {};
  const button = (parent, name, text, hint, command, ...values) => {
    const made = make("button", parent, `glamkit-${name}`, text, { type: "button", title: hint });
    made.onclick = () => ask(command, values);
    return made;
  };
  const select = (parent, name, label, options, hint, changed) => {
    const outer = make("label", parent, "glamkit-field", `${label} `, { title: hint });
    const made = make("select", outer, `glamkit-${name}`, undefined, { title: hint });
    for (const [value, text, reason] of options) {
      const option = make("option", made, "", text, { value, title: reason || "" });
      option.disabled = Boolean(reason);
    }
    made.onchange = () => changed(made.value);
    return made;
  };
  const pick = (parent, type, group, value, text, hint, changed) => {
    const outer = make("label", parent, "glamkit-field", undefined, { title: hint });
    const made = make("input", outer, `glamkit-${group}-${value}`, undefined, { type, value, name: `${group}-${root.id}` });
    outer.append(` ${text}`);
    made.onchange = changed;
    return made;
  };

  const stage = make("div", root, "glamkit-stage glamkit-screen");
  ui.canvas = make("canvas", stage, "", undefined, {
    tabindex: 0,
    role: "application",
    "aria-label": `Picture of a dream of ${info.game}. Keys act while it has the focus; Escape or Tab leaves.`,
    title: "Click here to play with the keyboard",
  });
  const help = make("div", root, "glamkit-help");
  ui.focus = make("div", help, "glamkit-focus");
  ui.keys = make("div", help, "glamkit-keys");
  for (const key of info.keys) make("span", ui.keys, "", key);

  const now = make("div", root, "glamkit-now");
  const numbers = make("div", now, "glamkit-numbers");
  ui.numbers = Object.entries(HINTS).map(([name, hint]) => {
    const cell = make("div", numbers, "", undefined, { title: hint });
    make("div", cell, "glamkit-label", name);
    return make("div", cell, "glamkit-value");
  });
  ui.numbers[4].classList.add("glamkit-stays"); // grey once the game is over
  const policy = make("div", now, "glamkit-policy", undefined, { role: "group", "aria-label": "The policy's probabilities" });
  ui.policy = info.actions.map(([action]) => {
    const row = make("div", policy, "", undefined, { title: `Probability with which the policy takes ${action} next; the arrow marks the action that is taken next` });
    make("span", row, "glamkit-name", action);
    const meter = make("span", row, "glamkit-meter", undefined, { "aria-hidden": "true" });
    return { row, bar: make("span", meter), share: make("span", row, "glamkit-share") };
  });
  const versus = make("div", root, "glamkit-versus");
  const compare = make("div", versus, "glamkit-compare", undefined, { role: "group", "aria-label": "Compare with" });
  make("span", compare, "", "compare with:");
  const compared = info.compare.map(([name, text, reason]) => {
    const made = pick(compare, "checkbox", "compare", name, text, reason || BESIDE[name], () =>
      ask("compare", [compared.filter((one) => one.checked).map((one) => one.value)]));
    made.disabled = Boolean(reason);
    return made;
  });
  ui.compared = compared;
  ui.beside = make("div", versus, "glamkit-beside");

  const actions = make("div", root, "glamkit-actions", undefined, { role: "group", "aria-label": "One step with this action" });
  info.actions.forEach(([name, key], number) => {
    const made = button(actions, `action-${number}`, "", `One step with the action ${name}${key ? ` (key ${key})` : ""}`, "act", number);
    if (key) make("kbd", made, "", key);
    made.append(name);
  });
  const transport = make("div", root, "glamkit-transport", undefined, { role: "group", "aria-label": "Playing" });
  button(transport, "again", "Begin again", "Go to step 0 of this dream (key R); nothing is forgotten", "again");
  button(transport, "back", "Step back", "Go one step back (Backspace key); nothing is forgotten", "back");
  ui.play = button(transport, "play", "Play", "Play on from here, or pause (Enter key)", "toggle");
  button(transport, "step", "Step", "Go on by one step, with the action of whoever plays (key .)", "forward");
  ui.rate = select(transport, "rate", "speed", info.rates.map((rate) => [rate, rate]), "How fast it plays; 1 is 15 steps a second, as in the game", (rate) => ask("pace", [rate]));
  const who = make("div", root, "glamkit-who", undefined, { role: "radiogroup", "aria-label": "Who plays" });
  make("span", who, "", "who plays:");
  ui.who = Object.entries(WHO).map(([name, [text, hint]]) => pick(who, "radio", "who", name, text, hint, () => ask("hand", [name])));
  const place = make("div", root, "glamkit-line");
  ui.place = make("input", place, "glamkit-place", undefined, {
    type: "range", min: 0, "aria-label": "Step of this branch", title: "Drag to go to any step of this branch",
  });
  ui.step = make("span", place, "glamkit-step-of");
  ui.branches = make("span", place, "glamkit-branches", undefined, { role: "group", "aria-label": "Branches" });
  const more = make("div", root, "glamkit-more");
  button(more, "ask", "What if?", "Try every action from this step, several times each, and compare what follows (key B)", "ask");
  button(more, "noise", "Go on differently", "From the next step on random draws are made anew: the policy may choose other actions, and where the next picture is drawn at random the same actions may lead elsewhere", "other_noise");

  const message = make("div", root, "glamkit-message");
  ui.warning = make("div", message, "glamkit-warning", "", { role: "alert" });
  ui.note = make("div", message, "glamkit-note", "", { role: "status" });
  ui.futures = make("figure", root, "glamkit-what-if");
  ui.futures.hidden = true;
  ui.title = make("figcaption", ui.futures);
  ui.image = make("img", ui.futures, "glamkit-futures", undefined, { alt: "" });

  const fold = (name, title, hint) => {
    const made = make("details", root, `glamkit-${name}`);
    made.open = true;
    return [make("summary", made, "", title, { title: hint }), make("div", made)];
  };
  const [summary, rules] = fold("rules", "Settings of the dream", "How the model dreams; a change holds from the next step on");
  ui.summary = summary;
  const rule = (name, label, options, hint) => select(rules, name, label, options, hint, (value) =>
    ask("switch", [], { [name]: name === "temperature" ? Number(value) : value }));
  ui.rules = {
    modules: rule("modules", "modules", info.modules, "Which of the two Mamba modules take part in the dream"),
    memory: rule("memory", "memory", info.memory, "What the dream remembers: a window of the last steps, or every step so far"),
    latents: rule("latents", "next picture", info.latents, "The model predicts how likely each possible next picture is; here you choose which one the dream goes on with"),
    temperature: rule("temperature", "temperature", TEMPERATURES.map((one) => [one, String(one)]), "Above 1 random draws are more varied, below 1 less; nothing changes where the next picture is the most likely one"),
  };
  const [heading, choices] = fold("starts", "Starts", "Stored steps of the game at which a dream can begin");
  ui.heading = heading;
  choices.classList.add("glamkit-thumbnails");
  ui.starts = info.starts.map(({ step, why, picture }, number) => {
    const at = `step ${step.toLocaleString("en")}`;
    const one = button(choices, `start-${number + 1}`, undefined, `Begin a dream at ${at}: ${why}`, "begin", step);
    one.dataset.step = step;
    make("img", one, "", undefined, { src: picture, alt: `The last real frame before ${at}` });
    make("b", one, "", at);
    make("span", one, "", why);
    return one;
  });
  const [, files] = fold("save", "Save", "Keep this dream as a file; where it lies is said above");
  button(files, "save-gif", "GIF", "This branch from step 0 to its end, with the pictures beside it, as a moving picture", "save");
  return ui;
}

function fill(ui, state, n) {
  state.now.forEach((text, place) => put(ui.numbers[place], text));
  state.policy.forEach((share, place) => {
    const { row, bar, share: text } = ui.policy[place];
    bar.style.width = `${100 * share}%`;
    put(text, `${Math.round(100 * share)}%`);
    row.classList.toggle("glamkit-next", place === state.next);
  });
  ui.compared.forEach((box) => (box.checked = state.compared.includes(box.value)));
  ui.who.forEach((radio) => (radio.checked = radio.value === state.who));
  put(ui.play, state.playing ? "Pause" : "Play");
  ui.rate.value = state.rate;
  ui.place.max = Math.max(state.last, 1);
  if (!ui.place.dragged) ui.place.value = state.depth;
  const step = `step ${state.depth} of ${state.last}`;
  ui.place.setAttribute("aria-valuetext", step);
  put(ui.step, step);
  const branches = JSON.stringify(state.branches);
  if (ui.branches.drawn !== branches) {
    ui.branches.drawn = branches;
    // Buttons stay while more come: one that was pressed is still there when it is let go.
    const shown = state.branches.length > 1 ? state.branches : [], chips = ui.branches.children;
    if (shown.length < chips.length) ui.branches.replaceChildren();
    if (shown.length && !chips.length) ui.branches.append("branches:");
    for (let number = chips.length; number < shown.length; number++)
      make("button", ui.branches, "glamkit-branch", number + 1, { type: "button" }).onclick = () => ui.ask("branch", [number]);
    shown.forEach(({ title, here }, number) => {
      chips[number].title = title;
      chips[number].setAttribute("aria-pressed", here);
    });
  }
  for (const [name, control] of Object.entries(ui.rules)) {
    const value = String(state.rules[name]);
    if (![...control.options].some((option) => option.value === value)) make("option", control, "", value, { value });
    if (control.value !== value) control.value = value;
  }
  put(ui.summary, `Settings of the dream: ${state.summary}`);
  const begun = `this dream began at stored step ${state.start.toLocaleString("en")}`;
  put(ui.heading, `Starts (${begun})`);
  put(ui.note, state.message);
  ui.canvas.parentNode.classList.toggle("glamkit-over", state.over);
  ui.canvas.closest(".glamkit-dream").classList.toggle("glamkit-ended", state.over);
  ui.canvas.parentNode.dataset.from = begun;
  for (const one of ui.starts) one.setAttribute("aria-pressed", Number(one.dataset.step) === state.start);
  ui.canvas.closest(".glamkit-dream").dataset.n = n; // what a test waits for
}

function fillBeside(ui, beside, pictures) {
  if (ui.beside.names !== String(beside.map(([name]) => name))) {
    ui.beside.names = String(beside.map(([name]) => name));
    ui.beside.replaceChildren(...beside.map(([name]) => {
      const figure = make("figure");
      make("canvas", make("div", figure, "glamkit-screen"), "", undefined, { role: "img", "aria-label": name });
      const text = make("figcaption", figure);
      make("span", text, "", `${name}: `);
      make("span", text);
      make("strong", text, "glamkit-apart");
      return figure;
    }));
  }
  let place = 0;
  beside.forEach(([name, caption, there, over, note], number) => {
    const [screen, text] = ui.beside.children[number].children;
    const canvas = screen.firstChild;
    canvas.style.visibility = there ? "" : "hidden";
    screen.classList.toggle("glamkit-over", over);
    if (there) paint(canvas, pictures[place++]);
    canvas.setAttribute("aria-label", note ? `${name}; ${note}` : name);
    put(text.children[1], caption);
    put(text.children[2], note);
  });
}


function render({ model, el }) {
  // Studios in this page: each widget has a copy of this module, so the count is the page's.
  const count = (globalThis.glamkitStudios = (globalThis.glamkitStudios || 0) + 1);
  const root = make("div", make("div", el, "glamkit-studio"), "glamkit-dream", undefined, { id: `glamkit-${count}`, role: "group", "aria-label": "Dream studio" });
  // JupyterLab leaves keys alone that are pressed inside an element marked so.
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  const down = new Map(); // keys that are held: their places on the keyboard, and what they are to the kernel
  let newest = null;
  let heard = performance.now();
  let asked = 0;
  let pointed = false; // whether the last thing pressed was a mouse or a finger, not a key
  const ask = (command, values = [], named = {}) => model.send({ t: "do", command, values, named });
  const ui = build(root, model.get("controls"), ask);
  ui.ask = ask;

  function draw() {
    const { message, buffers } = newest;
    newest = null;
    const pictures = buffers.map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    paint(ui.canvas, pictures[0]);
    fillBeside(ui, message.beside, pictures.slice(1));
    fill(ui, message.state, message.n);
    model.send({ t: "ack", n: message.n });
  }

  function hear(message, buffers) {
    heard = performance.now();
    asked = 0;
    put(ui.warning, "");
    if (message.t !== "f") return;
    if (!newest) requestAnimationFrame(draw);
    newest = { message, buffers };
  }

  const forget = () => (ui.urls || []).forEach((url) => URL.revokeObjectURL(url));
  function futures() {
    const { title = "", text = "", figure = [] } = model.get("what_if");
    ui.futures.hidden = !title;
    put(ui.title, title);
    if (title) ui.title.scrollIntoView({ block: "nearest" }); // on a small screen it is far below the button
    ui.image.alt = text;
    forget();
    ui.urls = figure.map((png) => URL.createObjectURL(new Blob([png], { type: "image/png" })));
    if (figure.length) ui.image.src = ui.urls[0];
  }

  const held = () => ask("keys", [[...down.values()]]);
  // Letters and the point are what they type, on whichever keyboard; all other keys are where they lie.
  const name = ({ key, code }) => (/^[a-z]$/i.test(key) ? `Key${key.toUpperCase()}` : key === "." ? "Period" : code);
  const back = () => pointed && ui.canvas.focus({ preventScroll: true });

  function press(event) {
    const known = down.has(event.code);
    // A key that is held stays ours, whatever is pressed beside it: else nobody would hear that it is let go.
    if (!known && (event.ctrlKey || event.metaKey || event.altKey || event.code === "Tab")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat && !known) return; // it was pressed before the picture had the focus
    if (event.code === "Escape") return ui.canvas.blur();
    // While a Mac's command key is held nobody hears that others are let go.
    if (event.type === "keyup" && event.key === "Meta") down.clear();
    else if (event.type === "keyup") down.delete(event.code);
    else if (!known) down.set(event.code, name(event));
    if (known !== down.has(event.code) || event.key === "Meta") held();
  }

  function focused(event) {
    // Whoever leaves the window leaves the picture as its active element, and lets keys go elsewhere.
    const on = event?.type !== "blur" && document.activeElement === ui.canvas;
    root.classList.toggle("glamkit-on", on);
    put(ui.focus, on ? "● Keys are on. Escape or Tab leaves." : "○ Keys are off. Click the picture to play with keys.");
    if (!on && down.size) {
      down.clear();
      held();
    }
  }

  for (const kind of ["keydown", "keyup"]) ui.canvas.addEventListener(kind, press);
  for (const kind of ["focus", "blur"]) ui.canvas.addEventListener(kind, focused);
  ui.canvas.addEventListener("click", () => ui.canvas.focus());
  // Whoever clicks goes on with the keys; whoever came by Tab stays where they are.
  root.addEventListener("pointerdown", () => (pointed = true), true);
  root.addEventListener("keydown", () => (pointed = false), true);
  root.addEventListener("click", (event) => {
    const pressed = event.target.closest("button, input:not([type=range])");
    if (pressed) back();
    // What a press far below changes is brought into view.
    if (pressed?.dataset.step) ui.canvas.scrollIntoView({ block: "nearest" });
    else if (pressed?.closest("details")) ui.note.scrollIntoView({ block: "nearest" });
  });
  root.addEventListener("change", back);
  ui.place.addEventListener("pointerdown", () => {
    ui.place.dragged = true;
    // Not on "change": a handle that is let go where it was taken has not changed.
    const free = () => (ui.place.dragged = false);
    for (const kind of ["pointerup", "pointercancel"]) window.addEventListener(kind, free, { once: true });
  });
  ui.place.addEventListener("input", () => ask("scrub", [Number(ui.place.value)]));
  focused();

  // One question at a time: a kernel that is busy answers it when it is free.
  const watch = setInterval(() => {
    const now = performance.now();
    const silent = () => put(ui.warning, model.widget_manager?.kernel?.status === "busy" ? BUSY : CLOSED);
    if (asked && now - asked > PATIENCE) silent();
    if (!asked && now - heard > PATIENCE / 2) {
      asked = now;
      try {
        model.send({ t: "ping" });
      } catch {
        silent(); // a closed kernel takes no messages at all
      }
    }
  }, 500);

  const heed = { "change:what_if": futures, "msg:custom": hear };
  for (const [event, done] of Object.entries(heed)) model.on(event, done);
  futures();
  model.send({ t: "ready" });
  return () => {
    clearInterval(watch);
    forget();
    for (const [event, done] of Object.entries(heed)) model.off(event, done);
  };
}

export default { render };
