// How the page asks the server.

/** The answer as JSON; throws an Error with a line for a person. */
export async function ask(path, options) {
  return (await get(path, options)).json();
}

/** A URL of the answer's content, for an image; revoke it when it is shown no more. */
export async function askImage(path) {
  return URL.createObjectURL(await (await get(path)).blob());
}

async function get(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; was it ended?");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => null);
    throw new Error(said?.error ?? `The server answered ${response.status}.`);
  }
  return response;
}

/** `run`, one call at a time; of those that come meanwhile the last one is run. */
export function latest(run) {
  let running = false;
  let next = null;
  return async function call(...given) {
    if (running) {
      next = given;
      return;
    }
    running = true;
    try {
      await run(...given);
    } catch (error) {
      complain(error);
    } finally {
      running = false;
      if (next !== null) {
        const waiting = next;
        next = null;
        call(...waiting);
      }
    }
  };
}

/** Shows what went wrong; without an argument it was put right. */
export function complain(error) {
  const place = document.getElementById("problem");
  place.hidden = error === undefined;
  place.textContent = error?.message ?? "";
}

/** An element with text and attributes; nothing is taken for HTML. */
export function make(tag, { text, children = [], ...attributes } = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A probability in words: `93.1 %`, `< 0.1 %`. */
export function percent(value) {
  if (value > 0 && value < 0.001) return "< 0.1 %";
  return `${(100 * value).toFixed(1)} %`;
}

export const query = (values) => new URLSearchParams(values).toString();
