// Texts by key, in the first language of the browser's list that we have.

/**
 * What a page needs of its words: the language, `say` (`{0}`, `{1}` in a text are replaced by the details), and `translate`.
 * What a newer server names (`refused.…`, `outcome.…`) is its group's `unknown`, else said as it is named.
 */
export function texts(words) {
  const language = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in words) ?? "en";
  const text = (key) => words[language][key] ?? words[language][key.replace(/[^.]*$/, "unknown")] ?? key.replace(/^.*\./, "");
  const say = (key, ...details) => text(key).replace(/\{(\d)\}/g, (_, place) => details[place] ?? "");

  /** Puts the texts into a page written in English. */
  function translate(root) {
    document.documentElement.lang = language === "pt" ? "pt-BR" : language;
    for (const element of root.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
    for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  }
  return { language, say, translate };
}
