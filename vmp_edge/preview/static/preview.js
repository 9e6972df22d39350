// The preview's page: it draws what /api/events tells, and asks for a picture when it has drawn the last one.

const SPAN = 60; // seconds that the timeline and the graphs show
const HOLE = 2; // seconds without a result after which a label no longer counts as shown
const REDRAW = 250; // milliseconds

const find = (selector, inside = document) => inside.querySelector(selector);
const labels = new Map(); // label -> number, for its colour
let cameras = [];
let socket = null;
let clock = 0; // server's seconds minus this page's

const now = () => performance.now() / 1000 + clock;

function colour(label) {
  // The golden angle keeps neighbours apart however many labels there are.
  return `hsl(${((labels.get(label) ?? 0) * 137.5 + 210) % 360} 65% 48%)`;
}

// A canvas for drawing in CSS pixels, cleared; null while it is not laid out.
function sheet(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  const x = (time) => width * (1 - (now() - time) / SPAN);
  return { context, width, height, x };
}

class Camera {
  constructor(state, history) {
    this.index = state.index;
    this.results = history.results;
    this.drops = history.drops; // [time, frames dropped so far]
    this.root = find("#camera").content.cloneNode(true).firstElementChild;
    this.root.dataset.camera = state.index;
    this.part = (name) => find(`.${name}`, this.root);
    this.live = this.part("live");
    this.live.setAttribute("aria-label", `Live picture of \u2068${state.name}\u2069`);
    this.part("name").textContent = this.part("name").title = state.name;
    this.part("toggle").addEventListener("click", () => this.toggle());
    this.show(state);
    if (state.result) this.tell(state.result);
  }

  // How the camera is doing.
  show(state) {
    this.active = ["opening", "running", "lost"].includes(state.state);
    this.root.classList.toggle("idle", state.state !== "running");
    const shown = this.part("state");
    shown.className = `state ${state.state}`;
    shown.textContent =
      state.state === "running" ? `${state.frames_per_second.toFixed(1)} frames/s` : state.state;
    this.part("message").textContent = state.state === "running" ? "" : state.message;
    this.part("toggle").textContent = this.active ? "Stop" : "Start";
    this.fill(state);
    if (state.windows) {
      const { p50, p95 } = state.latency_ms;
      const level = state.level ? `, level ${state.level}` : "";
      const still = state.result?.skipped ? "still: " : "";
      this.part("latency").textContent = `${still}${p50.toFixed(1)} ms median, ${p95.toFixed(1)} ms p95${level}`;
    }
    this.part("drops").textContent = `${state.dropped} of ${state.frames}`;
  }

  // Before its window is full there is no result: say how far it is.
  fill({ state, filled, window_s: seconds, result }) {
    const filling = state === "running" && filled < 1;
    if (filling) {
      const whole = seconds ? ` of ${Number(seconds.toPrecision(3))} s` : "";
      this.part("label").textContent = `filling the window${whole}: ${Math.round(100 * filled)}%`;
      this.part("score").textContent = "";
      this.part("top").replaceChildren();
    } else if (this.filling && result) {
      this.tell(result);
    }
    this.filling = filling;
  }

  // A result: label and bars.
  tell(result) {
    this.part("label").textContent = result.label;
    this.part("score").textContent = `${Math.round(100 * result.score)}%`;
    this.part("top").replaceChildren(
      ...result.top.map(([label, score]) => {
        const row = document.createElement("li");
        const [name, track, fill, share] = ["span", "div", "div", "span"].map((tag) => document.createElement(tag));
        name.textContent = name.title = label;
        track.className = "track";
        fill.className = "fill";
        fill.style.width = `${100 * score}%`;
        fill.style.background = colour(label);
        share.textContent = `${Math.round(100 * score)}%`;
        track.append(fill);
        row.append(name, track, share);
        return row;
      }),
    );
  }

  async toggle() {
    const button = this.part("toggle");
    button.disabled = true;
    const what = this.active ? "stop" : "start";
    try {
      const response = await fetch(`/api/${what}`, { method: "POST", body: JSON.stringify({ camera: this.index }) });
      if (response.ok) this.show((await response.json()).cameras[this.index]);
    } finally {
      button.disabled = false;
    }
  }

  // Draws a JPEG; the canvas takes the picture's size.
  async picture(jpeg) {
    const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    if (this.live.width !== bitmap.width || this.live.height !== bitmap.height) {
      [this.live.width, this.live.height] = [bitmap.width, bitmap.height];
    }
    this.live.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }

  forget() {
    const begin = now() - SPAN - HOLE;
    while (this.results.length && this.results[0].time < begin) this.results.shift();
    while (this.drops.length && this.drops[0][0] < begin) this.drops.shift();
  }

  draw() {
    this.forget();
    this.drawTimeline();
    this.drawLatency();
    this.drawDrops();
  }

  drawTimeline() {
    const page = sheet(this.part("timeline"));
    if (!page) return;
    const { context, height, x } = page;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const { label, begin, end } of spans(this.results)) {
      const [left, right] = [Math.max(x(begin), 0), x(end)];
      context.fillStyle = colour(label);
      context.fillRect(left, 0, right - left, height);
      if (context.measureText(label).width + 10 < right - left) {
        context.fillStyle = "#fff";
        context.fillText(label, left + 5, height / 2);
      }
    }
  }

  drawLatency() {
    plot(this.part("latency-graph"), this.results.map(({ time, latency_ms: ms }) => [time, ms]), "--accent", " ms");
  }

  drawDrops() {
    const rates = this.drops.slice(1).map(([time, count], index) => {
      const [before, earlier] = this.drops[index];
      return [time, Math.max(0, count - earlier) / Math.max(time - before, 0.1)];
    });
    plot(this.part("drops-graph"), rates, "--bad", "/s");
  }
}

// Results with the same label, one after another, as one span each.
function spans(results) {
  const found = [];
  results.forEach(({ time, label }, index) => {
    const next = results[index + 1]?.time ?? now();
    const end = Math.min(next, time + HOLE);
    const last = found.at(-1);
    if (last?.label === label && time - last.end < 0.01) last.end = end;
    else found.push({ label, begin: time, end });
  });
  return found;
}

// A line through [time, value] and the area under it, with the largest value as the scale.
function plot(canvas, points, property, unit) {
  const page = sheet(canvas);
  if (!page) return;
  const { context, width, height, x } = page;
  const most = Math.max(1, ...points.map(([, value]) => value));
  const style = getComputedStyle(canvas);
  context.strokeStyle = context.fillStyle = style.getPropertyValue(property);
  const y = (value) => height - 2 - ((height - 18) * value) / most;
  context.beginPath();
  points.forEach(([time, value], index) => {
    const broken = index === 0 || time - points[index - 1][0] > HOLE;
    context[broken ? "moveTo" : "lineTo"](x(time), y(value));
  });
  context.stroke();
  context.fillStyle = style.getPropertyValue("--faint");
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  context.fillText(`${most.toFixed(most < 10 ? 1 : 0)}${unit}`, width - 4, 12);
}

function greet({ bundle, cameras: states, history, now: time }) {
  clock = time - performance.now() / 1000;
  labels.clear();
  bundle.labels.forEach((label, number) => labels.set(label, number));
  find("#bundle").textContent = document.title = bundle.name;
  find("#engine").textContent = `${bundle.engine}, ${bundle.precision}, ${bundle.frames} frames a window`;
  find("#classes summary").textContent = `Classes (${bundle.labels.length})`;
  find("#labels").replaceChildren(
    ...bundle.labels.map((label) => {
      const [row, dot, name] = ["li", "i", "bdi"].map((tag) => document.createElement(tag));
      dot.style.background = colour(label);
      name.textContent = label;
      row.append(dot, name);
      row.dataset.label = label;
      return row;
    }),
  );
  cameras = states.map((state, index) => new Camera(state, history[index]));
  find("#cameras").replaceChildren(...cameras.map(({ root }) => root));
  cameras.forEach(({ index }) => ask(index));
}

function heed(message) {
  if (message.type === "hello") {
    greet(message);
  } else if (message.type === "result") {
    const camera = cameras[message.camera];
    camera.results.push(message);
    camera.tell(message);
  } else if (message.type === "state") {
    clock = message.now - performance.now() / 1000;
    message.cameras.forEach((state) => {
      cameras[state.index].drops.push([message.now, state.dropped]);
      cameras[state.index].show(state);
    });
  }
}

// A page that nobody sees asks for no pictures: none are encoded for it.
function ask(camera) {
  if (!document.hidden && socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ picture: camera }));
}

async function unpack(content) {
  const camera = new DataView(content).getUint32(0);
  await cameras[camera].picture(content.slice(8));
  cameras[camera].live.dataset.number = new DataView(content).getUint32(4);
  ask(camera);
}

function connect() {
  const status = find("#connection");
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/events`);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => {
    status.textContent = "live";
    status.className = "";
  });
  socket.addEventListener("message", ({ data }) => (typeof data === "string" ? heed(JSON.parse(data)) : unpack(data)));
  socket.addEventListener("close", async () => {
    status.textContent = "connection lost, trying again";
    status.className = "off";
    const response = await fetch("/api/state").catch(() => null);
    if (response?.status === 401) location.reload(); // another token since: the page that asks for it
    else setTimeout(connect, 1500);
  });
}

function redraw() {
  if (document.hidden) return;
  cameras.forEach((camera) => camera.draw());
  const current = cameras.filter(({ filling }) => !filling);
  const shown = new Set(current.map(({ results }) => results.at(-1)?.label));
  document.querySelectorAll("#labels li").forEach((row) => row.classList.toggle("now", shown.has(row.dataset.label)));
}

document.addEventListener("visibilitychange", () => cameras.forEach(({ index }) => ask(index)));
setInterval(redraw, REDRAW);
connect();
