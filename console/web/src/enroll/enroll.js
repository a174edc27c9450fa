// Enrolment: a password of the directory is proved once, and then a telephone may log in.
import { drawn } from "../console/page.js";
import { texts } from "../texts.js";
import words from "./words.json";

const { say, translate } = texts(words);
const $ = (id) => document.getElementById(id);
const QUIET = 4; // modules around a QR code (ISO/IEC 18004)

translate(document);
document.title = `Ramal – ${say("enrolment")}`;
$("name").focus();
fetch("api/settings").then((answer) => answer.json()).then((settings) => {
  $("choice").hidden = settings.generates;
  if (settings.generates) $("why").textContent = say("whyGenerated");
}, () => problem("notReachable"));

$("enroll").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { elements } = event.target;
  const button = event.target.querySelector("button");
  button.disabled = true;
  problem("");
  const asked = { name: elements.name.value.trim(), password: elements.password.value, generated: elements.generated.checked };
  try {
    const answer = await fetch("api/enroll", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked) });
    const told = await answer.json();
    if (answer.ok) shown(told);
    else problem(`refused.${told.error}` in words.en ? told.error : "failed", told.seconds);
  } catch {
    problem("notReachable");
  }
  button.disabled = false;
  elements.password.value = "";
  if (!$("enroll").hidden) elements.password.focus();
});

$("again").addEventListener("click", () => {
  $("phone-password").textContent = "";
  $("code").replaceChildren();
  $("done").hidden = true;
  $("enroll").reset();
  $("enroll").hidden = false;
  $("name").focus();
});

/** What phones log in with, this one time. */
function shown(told) {
  $("enroll").hidden = true;
  $("done").hidden = false;
  $("retired").hidden = !told.retired;
  $("user").textContent = told.name;
  $("domains").textContent = told.domains.join(", ");
  $("phone-password").textContent = told.phone_password ?? say("directorys");
  $("phone-password").className = told.phone_password ? "secret" : "";
  $("once").hidden = !told.phone_password;
  $("picture").hidden = !told.qr;
  if (told.qr) {
    const side = told.qr.size + 2 * QUIET;
    const box = { viewBox: `${-QUIET} ${-QUIET} ${side} ${side}`, role: "img", "aria-label": say("code"), "shape-rendering": "crispEdges" };
    $("code").replaceChildren(drawn("svg", box, drawn("path", { d: told.qr.path, fill: "#000" })));
    $("caption").textContent = say(told.fetched ? "fetched" : "uri");
  }
  $("done-title").focus();
}

function problem(error, seconds = 0) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? say(`refused.${error}`, waiting(seconds)) : "";
}

function waiting(seconds) {
  return seconds < 120 ? say("seconds", `${seconds}`) : say("minutes", `${Math.ceil(seconds / 60)}`);
}
