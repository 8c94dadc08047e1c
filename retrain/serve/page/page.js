"use strict";

const AT_ONCE = 2; // requests; the rest waits here and not at the server
const BARS = 5; // labels that are shown at first
const TAGS = 24; // labels that are named above
const TRIES = 8; // of a request while the server is busy
const LONGEST_PAUSE = 30; // seconds between two of them, whatever the server says
const PATIENCE = 120; // seconds without a sign of life
const HEARD_EVERY = 700; // ms
const MEGA = 2 ** 20;
// The colours and opacity of the project's maps.
const STOPS = [[255, 255, 178], [254, 204, 92], [253, 141, 60], [240, 59, 32], [200, 0, 38]];
const MOST = 0.75;
const MAP_SIDE = 256; // pixels of a map's longer side
const NOTES = {
  "turned": "turned upright, as its EXIF data says",
  "first-frame": "of several frames, only the first was looked at",
  "broken-exif": "its EXIF data is damaged, so it may lie on its side",
};

const by = (id) => document.getElementById(id);
const cards = new Set();
const queue = []; // what is to be asked, first come first served
let running = 0;
let mapsOn = false; // as it was switched last: pictures that come later follow

/** Make an element with a class and text. Text is all that names and messages ever become. */
function make(tag, kind = "", ...contents) {
  const made = document.createElement(tag);
  made.className = kind;
  made.append(...contents.map((one) => (one instanceof Node ? one : String(one))));
  return made;
}

/** A label or a file name: isolated, so that one from right to left leaves the rest in order. */
function named(name) {
  const made = make("bdi", "", name);
  made.title = name;
  return made;
}

function percent(score) {
  const said = score > 0 && score < 0.0005 ? "< 0.1" : score < 1 && score >= 0.9995 ? "> 99.9" : (100 * score).toFixed(1);
  return `${said}\u00a0%`;
}

function duration(ms) {
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

const size = (bytes) => (bytes < MEGA ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / MEGA).toFixed(1)} MiB`);
const upper = (words) => words.replace(/^./, (first) => first.toUpperCase());
const sentence = (words) => upper(words).replaceAll(" %", "\u00a0%").replace(/\.?$/, ".");
const many = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

/** Why a picture has no answer, in words for people. `again`: whether to try again may help. */
class Trouble extends Error {
  constructor(words, again) {
    super(words);
    this.again = again;
  }
}

/* What is heard and told */

const news = [];
let saying = 0;

/** Have something read out, not at once: a hundred answers in a minute are summed up. */
function announce(words) {
  news.push(words);
  saying ||= setTimeout(() => {
    const left = [...cards].filter((card) => card.pending).length;
    const said = news.length > 3 ? `${news.length} messages, the last: ${news.at(-1)}` : news.join("; ");
    by("heard").textContent = left ? `${said}; ${left} to go` : said;
    news.length = saying = 0;
  }, HEARD_EVERY);
}

function tell(words) {
  by("notice").textContent = words;
  by("notice").hidden = !words;
}

function count() {
  const done = [...cards].filter((card) => !card.pending).length;
  by("count").textContent = done === cards.size ? `${cards.size}` : `${done} of ${cards.size} done`;
  by("results").hidden = !cards.size;
  by("app").classList.toggle("some", cards.size > 0);
}

/* What the model knows */

let served = 0; // the version of the model
let known = null; // a promise of the answer; null again where there was none

function about() {
  known ||= fetch("about").then((reply) => (reply.ok ? reply.json() : Promise.reject())).then(introduce).catch(() => {
    known = null;
    by("knows").textContent = "The server does not answer.";
    return {};
  });
  return known;
}

function introduce(model) {
  const labels = model.labels;
  by("knows").textContent = `This model knows ${many(labels.length, "label")}:`;
  const tag = (label) => {
    const item = make("li", "", named(label));
    item.firstChild.className = "tag";
    return item;
  };
  by("labels").replaceChildren(...labels.slice(0, TAGS).map(tag));
  if (labels.length > TAGS) {
    const more = make("button", "quiet", `and ${labels.length - TAGS} more`);
    more.type = "button";
    more.onclick = () => {
      by("labels").replaceChildren(...labels.map(tag));
      by("labels").tabIndex = -1;
      by("labels").focus();
    };
    by("labels").append(make("li", "", more));
  }
  by("accuracy").textContent = `Test accuracy: ${model.accuracy}`;
  by("accuracy").hidden = !model.accuracy;
  by("version").textContent = `retrain ${model.version}`;
  return model;
}

/* Asking the server */

/** Put a task in line; it runs once fewer than AT_ONCE do. */
function line(task, first = false) {
  queue[first ? "unshift" : "push"](task);
  next();
}

function next() {
  while (running < AT_ONCE && queue.length) {
    running += 1;
    queue.shift()().finally(() => {
      running -= 1;
      next();
    });
  }
}

/** Send a file once; the finished request, whatever its status. `sent` is told the share of it that is on its way. */
function post(file, query, sent, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let watch = 0;
    let silent = false;
    const stop = () => request.abort();
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => {
        silent = true;
        stop();
      }, 1000 * PATIENCE);
    };
    request.upload.onprogress = (event) => {
      alive();
      sent(event.lengthComputable ? event.loaded / event.total : 1);
    };
    request.upload.onload = () => sent(1);
    request.onprogress = alive;
    request.onload = () => resolve(request);
    request.onerror = () => reject(new Trouble("The server cannot be reached, or the file can no longer be read.", true));
    request.onabort = () => reject(new Trouble(silent ? `No answer for ${PATIENCE} seconds.` : "Stopped.", true));
    request.onloadend = () => {
      clearTimeout(watch);
      signal.removeEventListener("abort", stop);
    };
    signal.addEventListener("abort", stop);
    request.open("POST", query ? `explain?${query}` : "explain");
    // The content tells whether it is a picture, whatever the system makes of its name.
    const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
    request.setRequestHeader("Content-Type", type);
    alive();
    request.send(file);
    if (signal.aborted) stop();
  });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new Trouble("Stopped.", true));
    });
  });
}

/** Ask until the server is not busy; the answer, with the ms that it took in all. Throws Trouble. */
async function ask(file, query, { sent, busy, signal }) {
  for (let tried = 1; ; tried += 1) {
    const begun = performance.now();
    const reply = await post(file, query, sent, signal);
    if (reply.status === 503 && tried < TRIES) {
      const seconds = Math.min(parseFloat(reply.getResponseHeader("Retry-After")) || 1, LONGEST_PAUSE);
      busy(`The server is busy. Trying again in ${seconds} s, try ${tried + 1} of ${TRIES}.`);
      await pause(seconds, signal);
      continue;
    }
    return { ...read(reply), took: performance.now() - begun };
  }
}

/** The JSON of an answer. What stands between may answer as well, and in HTML. */
function read(reply) {
  let found = null;
  try {
    found = JSON.parse(reply.responseText);
  } catch {
    // Said below.
  }
  if (reply.status >= 400) {
    const words = found?.error && String(found.error);
    const again = reply.status >= 500 || [408, 429].includes(reply.status);
    throw new Trouble(words || `The server answered ${reply.status} and did not say why.`, again);
  }
  const sound = ({ label, score }) => typeof label === "string" && score >= 0;
  if (reply.status !== 200 || !found?.labels?.length || !found.labels.every(sound)) {
    throw new Trouble("The answer cannot be understood. Is this the address of retrain serve?", true);
  }
  return found;
}

/* Maps */

/** Which of `count` places each of `length` pixels takes its value from, and how much: bicubic, as in retrain/heat. */
function taps(count, length) {
  const weight = (at) => {
    const far = Math.abs(at);
    if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
    return far < 2 ? ((-0.5 * far + 2.5) * far - 4) * far + 2 : 0;
  };
  return Array.from({ length }, (_, pixel) => {
    const centre = ((pixel + 0.5) * count) / length - 0.5;
    const found = [];
    for (let at = Math.max(Math.ceil(centre - 2), 0); at <= Math.min(Math.floor(centre + 2), count - 1); at += 1) {
      found.push([at, weight(at - centre)]);
    }
    const sum = found.reduce((all, [, share]) => all + share, 0);
    return found.map(([at, share]) => [at, share / sum]);
  });
}

/** Draw a grid of evidence. `most` has the hottest colour; what is 0 or less stays clear. */
function draw(canvas, grid, most, ratio) {
  const width = Math.max(Math.round(MAP_SIDE * Math.min(1, ratio)), 1);
  const height = Math.max(Math.round(MAP_SIDE * Math.min(1, 1 / ratio)), 1);
  Object.assign(canvas, { width, height });
  const mixed = (of, value) => of.reduce((sum, [at, share]) => sum + share * value(at), 0);
  const columns = taps(grid[0].length, width);
  const wide = grid.map((row) => columns.map((of) => mixed(of, (at) => Math.max(row[at], 0))));
  const pixels = new ImageData(width, height);
  taps(grid.length, height).forEach((of, y) => {
    for (let x = 0; x < width; x += 1) {
      const level = most > 0 ? Math.min(Math.max(mixed(of, (at) => wide[at][x]) / most, 0), 1) : 0;
      const at = level * (STOPS.length - 1);
      const low = Math.min(Math.floor(at), STOPS.length - 2);
      const colour = STOPS[low].map((channel, i) => channel + (at - low) * (STOPS[low + 1][i] - channel));
      pixels.data.set([...colour, 255 * MOST * level], 4 * (y * width + x));
    }
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/* Cards */

class Card {
  constructor(file) {
    this.file = file;
    this.name = file.name || "picture";
    this.url = URL.createObjectURL(file);
    this.stop = new AbortController();
    this.maps = new Map();
    this.node = by("card").content.firstElementChild.cloneNode(true);
    this.part = {};
    for (const part of this.node.querySelectorAll("[data-part]")) this.part[part.dataset.part] = part;
    const { file: name, image, remove, again, toggle, select } = this.part;
    name.textContent = name.title = this.name;
    image.alt = `The picture ${this.name}`;
    image.onload = () => this.shape(image.naturalWidth, image.naturalHeight);
    image.onerror = () => {
      image.hidden = true;
      this.part.blind.hidden = false;
    };
    image.src = this.url;
    remove.setAttribute("aria-label", `Remove ${this.name}`);
    remove.onclick = () => this.leave();
    again.onclick = () => {
      this.part.heading.focus();
      this.begin();
    };
    toggle.onclick = () => this.look();
    select.onchange = () => this.seek();
    this.state("waiting", "waiting");
  }

  get pending() {
    return ["waiting", "sending", "looking", "busy"].includes(this.node.dataset.state);
  }

  /** Say where this picture is on its way. `why`: what more there is to say. */
  state(name, verdict, why = "") {
    const { verdict: place, why: more, again, progress } = this.part;
    this.node.dataset.state = name;
    if (typeof verdict !== "string" || place.textContent !== verdict) place.replaceChildren(verdict);
    more.textContent = why;
    more.hidden = !why;
    progress.hidden = name !== "sending";
    again.hidden = true;
  }

  shape(width, height) {
    if (!width || !height) return; // an SVG may have none
    this.ratio = width / height;
    const { style } = this.part.frame;
    style.setProperty("--ratio", this.ratio);
    style.setProperty("--wide", `max(${2 * width}px, 12rem)`); // a small picture is not blown up more
  }

  begin() {
    this.state("waiting", "waiting");
    count();
    line(() => this.work());
  }

  get asking() {
    return {
      signal: this.stop.signal,
      busy: (words) => this.state("busy", "waiting", words),
      sent: (share) => {
        if (share === 1) {
          this.state("looking", "looking at it");
          return;
        }
        this.state("sending", `sending, ${Math.floor(100 * share)} %`);
        this.part.progress.value = share;
        this.part.progress.setAttribute("aria-label", `Sending ${this.name}`);
      },
    };
  }

  async work() {
    if (this.stop.signal.aborted) return;
    try {
      this.state("looking", "looking at it");
      const model = await about();
      if (this.file.size > model.bytes) {
        throw new Trouble(`It has ${size(this.file.size)}; the server takes ${size(model.bytes)} at most.`, false);
      }
      this.answer(await ask(this.file, model.way === "occlusion" ? "map=no" : "", this.asking)); // that is slow
    } catch (trouble) {
      if (!this.stop.signal.aborted) this.fail(trouble);
    }
    if (!this.stop.signal.aborted) count();
  }

  fail(trouble) {
    const words = trouble instanceof Trouble ? trouble.message : "The answer cannot be understood.";
    this.state("failed", "not labelled", words);
    this.part.again.hidden = trouble.again === false;
    announce(`${this.name}: not labelled. ${words}`);
  }

  answer(found) {
    const [{ label, score }] = found.labels;
    const parts = [bars(found.labels), remarks(found), nearest(found.neighbours ?? []), this.foot(found)].filter(Boolean);
    this.part.found.replaceChildren(...parts);
    this.part.found.hidden = false;
    if (!this.ratio) this.shape(found.width, found.height);
    if (found.unknown) {
      this.state("unknown", "unknown", "Unlike all that the model has learnt from. No label below may be right.");
      announce(`${this.name}: unknown, unlike all that the model has learnt from`);
    } else {
      const verdict = document.createDocumentFragment();
      verdict.append(named(label), " ", make("span", "score", percent(score)));
      this.state("done", verdict);
      announce(`${this.name}: ${label}, ${percent(score)}`);
    }
    this.part.select.replaceChildren(...found.labels.map((one) => new Option(one.label, one.label)));
    this.part.under.hidden = false;
    this.maps.clear();
    if (served && served !== found.version) {
      known = null;
      about();
    }
    served = found.version;
    this.learn(found);
    this.show(mapsOn && this.maps.has(label));
  }

  foot(found) {
    const { waited = 0, worked } = found.milliseconds ?? {};
    const said = [`${found.width} × ${found.height}`];
    if (worked !== undefined) said.push(`${duration(worked)} at work${waited >= 1 ? `, ${duration(waited)} in line` : ""}`);
    said.push(`${duration(found.took)} in all`);
    return make("p", "foot", said.map((part) => part.replaceAll(" ", "\u00a0")).join(" · "));
  }

  /** Keep the maps of an answer, each with the words for it. */
  learn({ maps = [], said, seen }) {
    maps.forEach(({ label, map }, at) => this.maps.set(label, { grid: map, said: at || !said ? "" : sentence(said) }));
    if (!maps.length) return;
    const [left, top, right, bottom] = seen ?? [0, 0, 1, 1];
    const box = { left, top, width: right - left, height: bottom - top };
    for (const [side, share] of Object.entries(box)) this.part.map.style[side] = `${100 * share}%`;
    this.shares = box.width / box.height;
  }

  /** Show the map of the label that is chosen, or the picture as it is. */
  show(on) {
    const { map, frame, toggle, key, select } = this.part;
    if (on) {
      const { grid, said } = this.maps.get(select.value);
      // One scale with the top label, so that a pale map has little to say.
      const both = [grid, this.maps.get(select.options[0].value)?.grid ?? []];
      draw(map, grid, Math.max(...both.flat(2)), (this.ratio ?? 1) * this.shares);
      map.setAttribute("aria-label", `Map of what speaks for ${select.value}`);
      this.say(said);
    } else {
      this.say("");
    }
    map.hidden = key.hidden = !on;
    frame.classList.toggle("pale", on);
    toggle.setAttribute("aria-pressed", on);
  }

  say(words) {
    this.part.said.textContent = words;
    this.part.said.hidden = !words;
  }

  /** Switch the map. */
  look() {
    if (this.part.toggle.ariaBusy === "true") return;
    mapsOn = this.part.map.hidden;
    if (mapsOn) this.seek();
    else this.show(false);
  }

  /** Show the map of the label that is chosen; ask for it where it is not there yet. */
  seek() {
    const { toggle, select, said } = this.part;
    const { value, selectedIndex } = select;
    if (this.maps.has(value)) {
      this.show(true);
      if (said.textContent) announce(said.textContent);
      return;
    }
    toggle.ariaBusy = "true";
    this.say("Looking where …");
    line(async () => {
      try {
        const asking = { signal: this.stop.signal, busy: (words) => this.say(words), sent() {} };
        this.learn(await ask(this.file, selectedIndex ? String(new URLSearchParams({ label: value })) : "", asking));
        if (!this.maps.has(value)) throw new Trouble("The server gave none.", false);
        if (select.value === value) this.seek();
      } catch (trouble) {
        if (this.stop.signal.aborted) return;
        select.selectedIndex = 0;
        this.show(this.maps.has(select.value));
        this.say(`No map. ${trouble instanceof Trouble ? trouble.message : "The answer cannot be understood."}`);
        announce(said.textContent);
      } finally {
        toggle.ariaBusy = "false";
      }
    }, true);
  }

  /** Take the card away, and give the focus to the one that takes its place. */
  leave() {
    const near = this.node.nextElementSibling ?? this.node.previousElementSibling;
    this.drop();
    count();
    (near?.querySelector(".remove") ?? by("choose")).focus();
    announce(`${this.name} removed`);
  }

  drop() {
    this.stop.abort();
    URL.revokeObjectURL(this.url);
    this.node.remove();
    cards.delete(this);
  }
}

/** The scores as bars: a list, so that it can be read without them. */
function bars(labels) {
  const row = ({ label, score }) => {
    const made = make("li", "", named(label), make("span", "", percent(score)));
    made.style.setProperty("--share", `${100 * score}%`);
    return made;
  };
  const list = make("ol", "scores", ...labels.slice(0, BARS).map(row));
  list.setAttribute("aria-label", "Scores");
  if (labels.length <= BARS) return list;
  const more = make("button", "quiet more");
  more.type = "button";
  const fold = (open) => {
    list.replaceChildren(...labels.slice(0, open ? labels.length : BARS).map(row));
    more.setAttribute("aria-expanded", open);
    more.textContent = open ? `Show ${BARS}` : `Show all ${labels.length}`;
  };
  more.onclick = () => fold(more.getAttribute("aria-expanded") !== "true");
  fold(false);
  return make("div", "", list, more);
}

function remarks(found) {
  const said = (found.remarks ?? []).filter((one) => one.kind !== "unknown").map((one) => one.words);
  if (found.unknown && Number.isFinite(found.typicality)) {
    const rate = Math.round(100 * found.typicality);
    said.unshift(`Of pictures of the known labels, ${rate < 1 ? "fewer than 1" : rate} in 100 are as unusual, or more.`);
  }
  said.push(...(found.notes ?? []).map((note) => NOTES[note]).filter(Boolean));
  const items = said.map((words) => make("li", "", sentence(words)));
  return items.length ? section("Remarks", make("ul", "remarks", ...items)) : null;
}

function nearest(neighbours) {
  if (!neighbours.length) return null;
  const one = ({ label, similarity, picture }) => {
    const made = make("li", "", named(label), make("span", "", `similarity ${similarity.toFixed(2)}`));
    if (typeof picture === "string" && picture.startsWith("data:image/")) {
      const image = make("img");
      image.alt = ""; // its label is said below
      image.draggable = false;
      image.src = picture;
      made.prepend(image);
    }
    return made;
  };
  return section("Nearest training pictures", make("ul", "near", ...neighbours.map(one)));
}

function section(heading, content) {
  return make("div", "", make("h4", "", heading), content);
}

/* Taking pictures in */

function add(files) {
  if (!files.length) return;
  tell("");
  const added = Array.from(files, (file) => new Card(file));
  for (const card of added) cards.add(card);
  by("cards").prepend(...added.map((card) => card.node));
  for (const card of added) line(() => card.work());
  count();
  announce(`${many(added.length, "picture")} added`);
  added[0].node.scrollIntoView({ block: "nearest" });
}

function clear() {
  for (const card of [...cards]) card.drop();
  queue.length = 0;
  count();
  by("choose").focus();
  announce("All pictures removed");
}

function dropped(transfer) {
  const items = Array.from(transfer.items).filter((item) => item.kind === "file");
  // Asked at once: items are empty as soon as the event is over.
  const folders = items.filter((item) => item.webkitGetAsEntry?.()?.isDirectory);
  add(items.filter((item) => !folders.includes(item)).map((item) => item.getAsFile()).filter(Boolean));
  if (folders.length) tell("A folder cannot be dropped: open it and drop the pictures that are in it.");
  else if (!items.length) tell("No file was dropped. Save the picture first, then drop it here.");
}

function pasted(event) {
  const { files, types } = event.clipboardData;
  if (files.length) add(files);
  else if (types.length) tell("The clipboard holds no picture.");
}

function dragging(event) {
  event.preventDefault();
  if (event.dataTransfer) event.dataTransfer.dropEffect = "copy";
  document.body.classList.toggle("dragging", event.type !== "drop");
}

/* The camera of a computer */

const camera = {
  stream: null,
  taken: 0,

  async offer() {
    const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
    by("photo").hidden = !devices.some((device) => device.kind === "videoinput");
  },

  async open() {
    const says = by("camera-says");
    says.textContent = "Waiting for the camera …";
    by("camera").showModal();
    try {
      const wanted = { video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } } };
      const stream = await navigator.mediaDevices.getUserMedia(wanted);
      this.close();
      this.stream = stream;
      if (!by("camera").open) return this.close();
      by("video").srcObject = stream;
      await by("video").play();
      says.textContent = "";
      by("shutter").disabled = false;
      by("shutter").focus();
    } catch (error) {
      if (!by("camera").open) return;
      says.textContent = error.name === "NotAllowedError" ? "The browser was not allowed to use the camera."
        : "The camera cannot be used. Does another program use it?";
    }
  },

  shoot() {
    const video = by("video");
    const canvas = make("canvas");
    Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    this.taken += 1;
    const name = `photo ${this.taken}.jpg`;
    canvas.toBlob((blob) => add([new File([blob], name, { type: "image/jpeg" })]), "image/jpeg", 0.92);
    by("camera").close();
  },

  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = by("video").srcObject = null;
    by("shutter").disabled = true;
  },
};

/** A phone has its own program for photos; elsewhere the page looks through the camera itself, where there is one. */
function offerPhotos() {
  const photo = by("photo");
  if (matchMedia("(pointer: coarse)").matches) {
    photo.hidden = false;
    photo.onclick = () => by("capture").click();
    return;
  }
  if (!navigator.mediaDevices?.getUserMedia) return; // not over http from another machine
  photo.onclick = () => camera.open();
  by("shutter").onclick = () => camera.shoot();
  by("camera-close").onclick = () => by("camera").close();
  by("camera").onclose = () => camera.close();
  navigator.mediaDevices.ondevicechange = () => camera.offer();
  camera.offer();
}

function start() {
  for (const id of ["files", "capture"]) {
    by(id).onchange = () => {
      add(by(id).files);
      by(id).value = ""; // so that the same file can be chosen again
    };
  }
  by("choose").onclick = () => by("files").click();
  by("clear").onclick = clear;
  addEventListener("dragenter", dragging);
  addEventListener("dragover", dragging);
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", (event) => {
    dragging(event);
    dropped(event.dataTransfer);
  });
  addEventListener("paste", pasted);
  offerPhotos();
  by("app").hidden = by("model").hidden = false;
  by("knows").textContent = "Asking the server …";
  about();
}

start();
