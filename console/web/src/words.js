// The page's texts, in the first language of the browser's list that we have.
import words from "./words.json";

export const language = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in words) ?? "en";

/** The text of a key; `{0}` in it is replaced by `detail`. */
export function say(key, detail = "") {
  return words[language][key].replace("{0}", detail);
}

/** Puts the texts into a page written in English. */
export function translate(root) {
  document.documentElement.lang = language === "pt" ? "pt-BR" : language;
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
}
