// The page: shows the phone's state and tells the phone what was clicked.
import { Phone } from "./phone.js";
import { allowSound, ring, silence } from "./tones.js";
import { say, translate } from "./words.js";

const $ = (id) => document.getElementById(id);
const phone = new Phone(show);
let shown = { line: "off", call: null, missed: phone.state.missed };
let settings = null;

// --- what was clicked -----------------------------------------------------------

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  allowSound();
  settings ??= await known();
  if (!settings) return problem(["noSettings"]);
  phone.register({ ...settings, name: $("name").value, password: $("password").value });
});

$("dial").addEventListener("submit", (event) => {
  event.preventDefault();
  phone.call($("callee").value, event.submitter?.value === "yes");
});

const clicks = {
  "sign-out": () => phone.signOut(),
  answer: () => phone.answer(false),
  "answer-video": () => phone.answer(true),
  decline: () => phone.hangUp(),
  "hang-up": () => phone.hangUp(),
  mute: () => phone.toggleMute(),
  "camera-off": () => phone.toggleCamera(),
  "keypad-shown": () => keypad($("keypad").hidden),
};
for (const [id, click] of Object.entries(clicks)) $(id).addEventListener("click", click);

for (const key of "123456789*0#") {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  button.addEventListener("click", () => phone.press(key));
  $("keypad").append(button);
}

// A reload would end the call: the browser asks before.
addEventListener("beforeunload", (event) => phone.state.call && event.preventDefault());

// A closed page is not left registered, nor in a call.
addEventListener("pagehide", () => phone.signOut());

/** Where to register, from the server; null if it does not answer. */
async function known() {
  try {
    const response = await fetch("settings.json");
    const { domain, websocket, port } = await response.json();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const host = port ? `${location.hostname}:${port}` : location.host;
    return { domain, websocket: websocket || `${scheme}://${host}/sip` };
  } catch {
    return null;
  }
}

// --- what is to be seen ---------------------------------------------------------

function show(state) {
  const { line, user, call } = state;
  document.body.dataset.line = line;
  $("line").dataset.line = line;
  text($("line"), say(`line.${line}`));
  problem(state.problem);
  $("sign-in").hidden = line !== "off";
  $("ready").hidden = line === "off" || Boolean(call);
  text($("who"), say("you", user));
  if (state.missed !== shown.missed) showMissed(state.missed);
  $("dial").inert = line !== "ready";
  if (line !== "off") $("password").value = "";
  showCall(call);
  focus(state);
  shown = { line, call, missed: state.missed };
}

function showMissed(missed) {
  $("missed").hidden = !missed.length;
  $("missed-calls").replaceChildren(...missed.map(({ peer, address, at }) => {
    const row = document.createElement("li");
    const who = document.createElement("span");
    const when = document.createElement("time");
    const back = document.createElement("button");
    who.textContent = peer;
    when.dateTime = new Date(at).toISOString();
    when.textContent = new Date(at).toLocaleTimeString(document.documentElement.lang, { timeStyle: "short" });
    back.type = "button";
    back.className = "plain";
    back.textContent = say("callBack");
    back.setAttribute("aria-label", say("callBackTo", peer));
    back.addEventListener("click", () => phone.call(address, false));
    row.append(who, when, back);
    return row;
  }));
}

function showCall(call) {
  $("call").hidden = !call;
  if (!call) delete document.body.dataset.picture;
  document.title = call ? `${call.peer} – Ramal` : "Ramal";
  if (call?.phase !== shown.call?.phase) {
    silence();
    if (call?.phase === "incoming") ring(true);
    if (call?.phase === "ringing") ring(false);
    keypad(false);
  }
  if (call?.remote.getAudioTracks().some((track) => !track.muted)) silence(); // what the other side plays is heard instead
  if (!call) {
    stream($("remote"), null);
    stream($("local"), null);
    return;
  }
  const incoming = call.phase === "incoming";
  text($("peer"), call.peer);
  text($("phase"), say(`phase.${incoming && call.video ? "incomingVideo" : call.phase}`));
  $("call").dataset.phase = call.phase;
  $("incoming").hidden = !incoming;
  $("controls").hidden = incoming;
  $("mute").hidden = $("camera-off").hidden = $("keypad-shown").hidden = call.phase !== "talking";
  $("camera-off").hidden ||= !call.local?.getVideoTracks().length;
  $("mute").setAttribute("aria-pressed", call.muted);
  $("camera-off").setAttribute("aria-pressed", call.cameraOff);
  $("muted").hidden = !call.muted;
  stream($("remote"), call.remote);
  stream($("local"), call.local);
  document.body.dataset.picture = $("stage").dataset.picture = call.remote.getVideoTracks().some((track) => track.readyState === "live" && !track.muted);
  $("local").hidden = call.cameraOff || !call.local?.getVideoTracks().length;
  time(call);
}

function stream(video, media) {
  if (video.srcObject !== media) video.srcObject = media;
}

/** Says it only if it is new: what is said again is read aloud again. */
function text(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

function problem(found) {
  text($("problem"), found ? say(...found) : "");
  $("problem").dataset.kind = found?.[0] ?? "";
  $("problem").hidden = !found;
}

function keypad(visible) {
  $("keypad").hidden = !visible;
  document.body.dataset.keys = visible;
  $("keypad-shown").setAttribute("aria-expanded", visible);
}

function time(call) {
  $("time").hidden = !call?.since;
  if (!call?.since) return;
  const seconds = Math.floor((Date.now() - call.since) / 1000);
  text($("time"), `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`);
}
setInterval(() => time(phone.state.call), 1000);

/** Puts the keyboard where the next step is. */
function focus({ line, call }) {
  if (line === "off" && shown.line !== "off") $("password").focus();
  else if (call?.phase === "incoming" && shown.call?.phase !== "incoming") $("answer").focus();
  else if (call && call.phase !== "incoming" && (!shown.call || shown.call.phase === "incoming")) $("hang-up").focus();
  else if (line === "ready" && !call && (shown.line !== "ready" || shown.call)) $("callee").focus();
}

translate(document);
show(phone.state);
$("name").focus();
