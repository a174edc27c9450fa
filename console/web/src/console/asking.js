// What the page asks of the server, and who it asks as.

/** A refusal, by a name that there are words for. */
export class Refused extends Error {
  constructor(status, error, seconds = 0, detail = "") {
    super(error);
    Object.assign(this, { status, error, seconds, detail });
  }
}

export const us = { name: "", role: "", csrf: "" };
let onLoggedOut = () => {};

/** What is done when the session is over. */
export function whenLoggedOut(done) {
  onLoggedOut = done;
}

export async function logIn(name, password) {
  Object.assign(us, await asked("log-in", { method: "POST", body: JSON.stringify({ name, password }) }));
}

export async function logOut() {
  await asked("log-out", { method: "POST", body: "{}" });
}

export async function whoWeAre() {
  Object.assign(us, await asked("me"));
}

/** GET of an answer; parameters that are empty are left out. Throws Refused. */
export function get(name, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return asked(query ? `${name}?${query}` : name, { signal });
}

/** POST of something to be done. Throws Refused. */
export function post(name, body) {
  return asked(name, { method: "POST", body: JSON.stringify(body) });
}

async function asked(path, options = {}) {
  const headers = options.method ? { "Content-Type": "application/json", "X-CSRF-Token": us.csrf } : {};
  let response;
  try {
    response = await fetch(`api/${path}`, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "notReachable");
  }
  const said = await response.json().catch(() => null);
  options.signal?.throwIfAborted();
  if (response.ok && said) return said;
  const refused = new Refused(response.status, said?.error ?? "unknown", said?.seconds, said?.detail);
  if (refused.error === "logged_out") onLoggedOut();
  throw refused;
}
