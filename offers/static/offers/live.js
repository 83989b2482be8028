/* Keeps an open page of offers as it is on the server: what is left, sold out, over, back again.

   <script defer src="…/live.js" data-live="ADDRESS"></script>, with data-anonymous if nobody is
   logged in. A card is <article data-offer="ID"> with <span data-left>, <div data-buy> around what
   one buys with, and <p data-sold-out hidden> with <span data-gone> in it. Without this script the
   page says what was left when it was made, and the server refuses what isn't there any more, as
   it does anyway. */
"use strict";

{
  const { live: address, anonymous } = document.currentScript.dataset;

  // Seconds from one look to the next: longer and longer while nothing changes, or nothing answers.
  const SHORTEST = 3;
  const LONGEST = 10;
  const AFTER_FAILURE = 5;
  const LONGEST_AFTER_FAILURE = 120;
  const PATIENCE = 10;

  const asked = {
    // Without cookies a proxy has one answer for everybody who isn't logged in.
    credentials: anonymous === undefined ? "same-origin" : "omit",
    cache: "no-store", // the validator is sent from here
  };
  // The same from everybody who reads this language, whatever else their browser would like.
  const headers = { "Accept-Language": document.documentElement.lang };

  let wait = SHORTEST;
  let notBefore = 0;
  let timer = 0;
  let isLooking = false;
  let isOver = false;

  // -- What a card says --------------------------------------------------------------------------

  const part = (card, name) => card.querySelector(`[data-${name}]`);

  const stateOf = (stock) => {
    if (!stock) return "over";
    if (stock.sold_out) return "sold out";
    return stock.said ? "few" : "many";
  };

  const stateOnThePage = (card) => {
    if (part(card, "sold-out")?.hidden === false) return "sold out";
    return part(card, "left")?.textContent.trim() ? "few" : "many";
  };

  const setText = (element, text) => {
    if (element && element.textContent !== text) element.textContent = text;
  };

  const show = (card, stock, state, words) => {
    const gone = state === "over" || state === "sold out";
    const buy = part(card, "buy");
    const notice = part(card, "sold-out");
    setText(part(card, "left"), gone ? "" : stock.said);
    if (notice) {
      const word = part(notice, "gone") || notice;
      word.dataset.text ??= word.textContent;
      setText(word, state === "over" ? words.over : word.dataset.text);
      notice.hidden = !gone;
    }
    if (buy && buy.hidden !== gone) {
      const hadFocus = buy.contains(document.activeElement);
      buy.hidden = gone;
      if (gone && hadFocus && notice) {
        notice.tabIndex = -1; // or the keyboard would be back at the top of the page
        notice.focus({ preventScroll: true });
      }
    }
  };

  // -- What a screen reader hears: not every unit, only what changes what one can do -------------

  const status = document.createElement("p");
  status.setAttribute("role", "status");
  status.className = "unseen";

  const news = (card, stock, state, words) => {
    const said = state === "over" ? words.over : state === "many" ? words.back : stock.said;
    const title = card.querySelector("h2, h3")?.textContent.trim();
    return title ? `${title}: ${said}` : said;
  };

  const apply = (answer) => {
    const heard = [];
    for (const card of document.querySelectorAll("[data-offer]")) {
      const stock = answer.offers[card.dataset.offer];
      const state = stateOf(stock);
      const before = card.dataset.stock || stateOnThePage(card);
      card.dataset.stock = state;
      show(card, stock, state, answer);
      // From few to many is a bigger stock, and no news for anybody.
      if (state !== before && !(before === "few" && state === "many")) {
        heard.push(news(card, stock, state, answer));
      }
    }
    if (heard.length) status.textContent = heard.join("\n");
  };

  // -- When to look ------------------------------------------------------------------------------

  // Pages that were opened together don't ask together for long; nobody asks sooner than told.
  const later = () => {
    clearTimeout(timer);
    if (isOver || isLooking || document.hidden) return;
    const told = Math.max(0, notBefore - Date.now());
    timer = setTimeout(look, told + wait * 1000 * (0.75 + Math.random() / 2));
  };

  const retryAfter = (response) => {
    const said = response.headers.get("Retry-After");
    if (!said) return 0;
    const seconds = /^\d+$/.test(said) ? Number(said) : (Date.parse(said) - Date.now()) / 1000;
    return Math.max(0, seconds || 0);
  };

  const failed = (seconds = 0) => {
    wait = Math.min(LONGEST_AFTER_FAILURE, Math.max(AFTER_FAILURE, wait * 2));
    notBefore = Date.now() + seconds * 1000;
  };

  const heed = async (response) => {
    if (response.status === 304) {
      wait = Math.min(LONGEST, wait * 1.25);
    } else if (response.ok) {
      apply(await response.json());
      headers["If-None-Match"] = response.headers.get("ETag");
      wait = SHORTEST;
    } else if (response.status === 429 || response.status >= 500) {
      failed(retryAfter(response));
    } else {
      isOver = true; // the event is gone, or not for this visitor any more: a reload will say so
    }
  };

  async function look() {
    isLooking = true;
    try {
      const signal = AbortSignal.timeout(PATIENCE * 1000);
      await heed(await fetch(address, { ...asked, headers, signal }));
    } catch {
      failed();
    }
    isLooking = false;
    later();
  }

  document.addEventListener("visibilitychange", () => {
    // Who comes back to the page sees it as it is now, unless the server asked for a rest.
    if (!document.hidden && !isLooking && !isOver && Date.now() >= notBefore) look();
    else later();
  });

  document.body.append(status);
  later();
}
