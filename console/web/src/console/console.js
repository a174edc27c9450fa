// The console: who is logged in, which page is shown, and what is new.
import { Refused, get, logIn, logOut, us, whenLoggedOut, whoWeAre } from "./asking.js";
import { call, calls } from "./calls.js";
import { health } from "./health.js";
import { operators } from "./operators.js";
import { element } from "./page.js";
import { registration, registrations } from "./registrations.js";
import { statistics } from "./statistics.js";
import { say, translate } from "./words.js";

const $ = (id) => document.getElementById(id);
const PAGES = { registrations: [registrations, registration], calls: [calls, call], statistics: [statistics], health: [health], operators: [operators] };
const HOME = "registrations";
let open = null;
let news = null;
let later;
let missed = false; // whether the stream was lost: what came meanwhile is not known
/** Which page counts: what one that was left still hears is nobody's problem. */
let turn = 0;
const AGAIN = 5000;

translate(document);
whenLoggedOut(loggedOut);
addEventListener("hashchange", show);

$("log-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { elements } = event.target;
  try {
    await logIn(elements.name.value.trim(), elements.password.value);
    event.target.reset();
    loggedIn();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    problem(error);
    elements.password.value = "";
    elements.password.focus();
  }
});

// A session that the server still has is not over because the page says so.
$("log-out").addEventListener("click", () => logOut().then(() => loggedOut(), (error) => (error.error === "logged_out" ? loggedOut() : problem(error))));

whoWeAre().then(() => (us.name ? loggedIn() : loggedOut()), loggedOut);

function loggedIn() {
  problem(null);
  $("log-in").hidden = true;
  $("top").hidden = false;
  $("who").textContent = us.role === "operator" ? us.name : say("readOnlyOperator", us.name);
  $("who").title = say("operators");
  listen();
  show();
}

function loggedOut(error = null) {
  close();
  clearTimeout(later);
  news?.close();
  news = null;
  Object.assign(us, { name: "", role: "", csrf: "" });
  $("top").hidden = true;
  $("view").replaceChildren();
  $("log-in").hidden = false;
  document.title = "Ramal";
  problem(error instanceof Refused ? error : null);
  $("name").focus();
}

// --- what is new: the server says what has changed, and the page asks for it --------

/** A tab that nobody sees frees its stream: a browser has six connections for all tabs of one server. */
function listen() {
  news?.close();
  clearTimeout(later);
  news = null;
  if (document.hidden || !us.csrf) return;
  news = new EventSource("api/events");
  news.addEventListener("open", () => {
    live("live");
    if (missed) lookAnew();
    missed = false;
  });
  news.addEventListener("error", ({ target }) => {
    live("notLive");
    missed = true;
    // What was answered by a refusal is not tried again by itself.
    if (target === news && target.readyState === EventSource.CLOSED) later = setTimeout(listen, AGAIN);
  });
  news.addEventListener("changed", (event) => open?.changed(JSON.parse(event.data)));
  // An EventSource cannot tell that the session is over from that the server is away.
  news.addEventListener("error", () => setTimeout(checkWhoWeAre, 1000));
}

/** Another tab may have logged out, or somebody else in. */
async function checkWhoWeAre() {
  if (!us.csrf) return;
  const said = await get("me").catch(() => null);
  if (said && !said.name) loggedOut();
  else if (said && us.csrf && said.csrf !== us.csrf) location.reload();
}

/** What happened meanwhile nobody has told. */
function lookAnew() {
  checkWhoWeAre();
  open?.changed({ registrations: true, calls: true });
}

document.addEventListener("visibilitychange", () => {
  if (!us.csrf) return;
  listen();
  if (!document.hidden) lookAnew();
});

function live(key) {
  $("live").dataset.live = key;
  $("live").textContent = say(key);
}

// --- which page -------------------------------------------------------------------------

/** `#/registrations/alice%40example.test?at=…`: the page, what shows it, what it is of, and its parameters. */
function where() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  const [root, page = "", name = "", ...more] = path.split("/");
  const at = page || root ? page : HOME;
  const [list, one] = !root && !more.length && Object.hasOwn(PAGES, at) ? PAGES[at] : [];
  return { page: at, shown: (name ? one : list) ?? nowhere, name: decoded(name), parameters: new URLSearchParams(query) };
}

/** The address of a page was typed, or comes from a newer version. */
function nowhere() {
  return {
    title: say("noSuchPage"),
    nodes: [element("p", {}, say("noSuchPageAt", location.hash)), element("p", {}, element("a", { href: `#/${HOME}` }, say(HOME)))],
    close: () => {},
    changed: () => {},
  };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  if (!us.csrf || location.hash === "#main") return;
  close();
  problem(null);
  const { page, shown, name, parameters } = where();
  const mine = turn;
  open = shown({ problem: (refused) => mine === turn && problem(refused), name, parameters, remember });
  const back = open.back ? element("a", { class: "back", href: open.back }, `← ${say(page)}`) : null;
  $("view").replaceChildren(...[back, element("h1", { tabindex: "-1" }, open.title), ...open.nodes].filter(Boolean));
  document.title = `${open.title} – Ramal`;
  for (const link of document.querySelectorAll("#top a")) {
    if (link.hash === `#/${page}` && shown !== nowhere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  open.shown?.();

  /** Keeps in the address what was asked for, so that it can be sent to somebody. */
  function remember(asked) {
    const given = new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== ""));
    if (mine !== turn) return;
    const query = given.toString();
    history.replaceState(null, "", `#/${page}${query ? `?${query}` : ""}`);
  }
}

function close() {
  open?.close();
  open = null;
  turn += 1;
}

function problem(refused) {
  $("problem").hidden = !refused;
  $("problem").textContent = refused ? say(`refused.${refused.error}`, refused.detail || refused.seconds || "") : "";
}
