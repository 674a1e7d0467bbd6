// The labels of the data set, the most doubtful first, and what a person says of them.

import { ask, byId, complain, make, percent, query } from "./ask.js";
import { imageAddress } from "./data.js";

const state = { classes: [], order: "doubt", next: 0, shown: false, ready: false };
const ACTIONS = { label: "wrong label", bad: "bad image", keep: "keep" };

export function beginReview(about) {
  state.classes = about.classes;
  byId("order").addEventListener("change", () => {
    state.order = byId("order").value;
    begin();
  });
  byId("more-doubts").addEventListener("click", () => showMore().catch(complain));
  byId("doubts").addEventListener("keydown", answerKey);
  document.addEventListener("data", () => {
    state.ready = true;
    if (state.shown) begin();
  });
  document.addEventListener("view", ({ detail }) => {
    state.shown = detail === "review";
    if (state.shown && byId("doubts").childElementCount === 0) begin();
  });
}

function begin() {
  if (!state.ready) return;
  byId("doubts").replaceChildren();
  state.next = 0;
  showMore().catch(complain);
}

async function showMore() {
  const { order, next } = state;
  const found = await ask(`api/review?${query({ order, start: next })}`);
  if (order !== state.order || next !== state.next) return;
  state.next = found.next;
  byId("review-work").hidden = false;
  byId("more-doubts").hidden = found.next === null;
  tally(found);
  const copies = order === "copies";
  const count = found.likely_wrong;
  byId("about-order").textContent = copies
    ? found.groups
      ? `${found.groups} groups of identical and nearly identical images, those of different classes first.`
      : "No two images are identical or nearly so."
    : `${count} ${count === 1 ? "label is" : "labels are"} likely wrong: another class ` +
      "is found with confidence by heads that have not seen the image. The most " +
      "doubtful come first.";
  let last = byId("doubts").lastElementChild;
  for (const item of found.items) {
    const group = String(item.group);
    if (last?.dataset.group !== group) {
      last = make("ul", { class: "doubt-group", "data-group": group });
      if (copies) last.classList.add("copies");
      byId("doubts").append(last);
    }
    last.append(card(item, copies));
  }
  const cards = all();
  if (!cards.some((one) => one.tabIndex === 0) && cards.length) cards[0].tabIndex = 0;
}

const all = () => [...byId("doubts").querySelectorAll(".doubt")];

function card(item, copies) {
  const image = make("img", { src: imageAddress(item.index), alt: item.path, loading: "lazy" });
  const element = make("li", {
    class: item.wrong ? "doubt likely" : "doubt",
    tabindex: "-1",
    "aria-label":
      `${item.path}, labeled ${item.label}` + (item.wrong ? ", likely wrong" : ""),
    "data-index": item.index,
    children: [
      make("div", { class: "frame", children: [image] }),
      make("p", {
        class: "given",
        children: [
          make("b", { text: item.label }),
          make("span", { class: "num quiet", text: percent(item.probability) }),
        ],
      }),
    ],
  });
  const mark = (action, label) => () => setMark(element, action, label);
  const choices = make("div", { class: "choices" });
  item.others.forEach(({ label, probability }, place) => {
    const button = make("button", {
      type: "button",
      title: `Wrong label: it is ${label}`,
      children: [
        make("kbd", { text: place + 1 }),
        make("span", { class: "name", text: label }),
        make("span", { class: "num quiet", text: percent(probability) }),
      ],
    });
    button.addEventListener("click", mark("label", label));
    choices.append(button);
  });
  if (state.classes.length > item.others.length + 1) {
    const select = make("select", {
      "aria-label": "Another class",
      children: [
        make("option", { value: "", text: "another class …" }),
        ...state.classes.map((text) => make("option", { value: text, text })),
      ],
    });
    select.addEventListener("change", () => {
      if (select.value) setMark(element, "label", select.value);
      select.value = "";
    });
    choices.append(select);
  }
  const plain = make("div", { class: "plain-choices" });
  for (const [action, key, text] of [
    ["keep", "K", "Keep"],
    ["bad", "B", "Bad image"],
  ]) {
    const button = make("button", {
      type: "button",
      children: [make("kbd", { text: key }), text],
    });
    button.addEventListener("click", mark(action));
    plain.append(button);
  }
  element.append(
    choices,
    plain,
    make("p", { class: "marked", hidden: "" }),
    make("p", {
      class: "path quiet",
      title: item.path,
      text: copies ? `${item.path} (${item.split}, ${item.alike})` : item.path,
    }),
  );
  element.addEventListener("focusin", () => {
    for (const other of all()) other.tabIndex = other === element ? 0 : -1;
  });
  showMark(element, item.mark);
  return element;
}

function showMark(element, mark) {
  const place = element.querySelector(".marked");
  element.dataset.action = mark?.action ?? "";
  place.hidden = mark === null;
  if (mark === null) {
    place.replaceChildren();
    return "";
  }
  const words =
    mark.action === "label" ? `wrong label → ${mark.label}` : ACTIONS[mark.action];
  const undo = make("button", { type: "button", class: "plain", text: "undo" });
  undo.addEventListener("click", () => setMark(element, ""));
  place.replaceChildren(make("b", { text: words }), " ", undo);
  return words;
}

async function setMark(element, action, label) {
  try {
    const body = query({ action, label: Math.max(state.classes.indexOf(label), 0) });
    const found = await ask(`api/review/${element.dataset.index}`, {
      method: "POST",
      body,
    });
    complain();
    tally(found);
    const words = showMark(element, found.mark);
    byId("review-said").textContent = words ? `Noted: ${words}.` : "Mark taken away.";
    if (action && element.contains(document.activeElement)) step(element, 1);
  } catch (error) {
    complain(error);
  }
}

function tally({ marked, file }) {
  const many = marked === 1 ? "1 image" : `${marked} images`;
  byId("tally").textContent = marked ? `${many} marked, in ${file}` : "";
}

function step(element, by) {
  const cards = all();
  const there = cards[cards.indexOf(element) + by];
  if (there === undefined) return;
  there.focus();
  there.scrollIntoView({ block: "nearest" });
}

function answerKey(event) {
  const element = event.target.closest(".doubt");
  const typing = event.target.matches("select") || event.ctrlKey || event.metaKey;
  if (element === null || typing || event.altKey) return;
  const groups = all();
  const top = element.offsetTop;
  const beside = groups.filter((one) => one.offsetTop === top).length;
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: beside, ArrowUp: -beside };
  const key = event.key.toLowerCase();
  const choice = element.querySelectorAll(".choices button")[Number(key) - 1];
  if (event.key in moves) step(element, moves[event.key]);
  else if (key === "k") setMark(element, "keep");
  else if (key === "b") setMark(element, "bad");
  else if (key === "u") setMark(element, "");
  else if (choice) choice.click();
  else return;
  event.preventDefault();
}
