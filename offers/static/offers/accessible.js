// What django-unfold leaves to a mouse, made good for keyboards and screen readers. Its templates
// put these on some thirty elements; a copy of each of them would have to follow every release.
"use strict";
{
  // Icons whose own names say nothing.
  const NAMES = { dock_to_right: "menu", more_vert: "more", expand_more: "open" };
  const NAMED = "a[href], button, input, select, textarea, summary";
  const text = (element) => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll(".material-symbols-outlined").forEach((icon) => icon.remove());
    return copy.textContent.trim();
  };

  // An icon is a ligature: "chevron_right" is what would be read aloud.
  const hideIcons = (root) => {
    for (const icon of root.querySelectorAll(".material-symbols-outlined:not([aria-hidden])")) {
      const isButton = icon.hasAttribute("x-on:click");
      const around = isButton ? icon : icon.closest("a, button, [x-on\\:click]");
      const isNamed = around?.hasAttribute("aria-label") || around?.title;
      if (around && !isNamed && (isButton || !text(around))) {
        const name = icon.textContent.trim();
        around.setAttribute("aria-label", NAMES[name] || name.replaceAll("_", " "));
      }
      if (!isButton) icon.setAttribute("aria-hidden", "true");
    }
  };

  // What only a click opens: filters, the menu of a person, groups of the navigation, the theme.
  const openByKey = (root) => {
    for (const element of root.querySelectorAll("[x-on\\:click]:not([tabindex])")) {
      const isBackdrop = !text(element) && !element.hasAttribute("aria-label");
      if (element.matches(NAMED) || isBackdrop) continue;
      element.tabIndex = 0;
      element.setAttribute("role", "button");
      element.addEventListener("keydown", (event) => {
        if (event.target !== element || (event.key !== "Enter" && event.key !== " ")) return;
        event.preventDefault();
        element.click();
      });
    }
  };

  // A table of rows to fill in shows each field's name in the head, or beside it on a phone.
  const labelRows = (root) => {
    for (const cell of root.querySelectorAll("td[data-label]")) {
      for (const field of cell.querySelectorAll("input:not([type=hidden]), select, textarea")) {
        if (!field.labels?.length && !field.hasAttribute("aria-label")) {
          field.setAttribute("aria-label", cell.dataset.label);
        }
      }
    }
  };

  // Select2 puts a box of its own in a field's place, and leaves the field's label behind.
  const labelBoxes = (root) => {
    for (const box of root.querySelectorAll(".select2-container .select2-selection")) {
      const field = box.closest(".select2-container").previousElementSibling;
      const name =
        field?.labels?.[0]?.textContent.trim().replace(/[*:]+$/, "") ||
        field?.getAttribute("aria-label") || field?.dataset?.placeholder;
      if (!name) continue;
      const shown = box.querySelector(".select2-selection__rendered");
      box.id ||= `${field.id}_box`;
      box.setAttribute("aria-label", name);
      box.querySelector("input")?.setAttribute("aria-label", name);
      if (shown?.id) {
        // The field's name, then what is chosen, which is nothing at first.
        box.setAttribute("aria-labelledby", `${box.id} ${shown.id}`);
        shown.setAttribute("aria-labelledby", box.id);
      }
    }
  };

  // Roles without which a name, or a list of other things than items, is an error.
  const addRoles = (root) => {
    for (const icon of root.querySelectorAll("span.help-tooltip[aria-label]:not([role])")) {
      icon.setAttribute("role", "img");
    }
    for (const list of root.querySelectorAll("ul.select2-selection__rendered:not([role])")) {
      list.setAttribute("role", "none");
      list.querySelectorAll("li").forEach((item) => item.setAttribute("role", "none"));
    }
  };

  const mend = () => {
    addRoles(document);
    hideIcons(document);
    openByKey(document);
    labelRows(document);
    labelBoxes(document);
  };

  let asked = false;
  const soon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      mend();
    });
  };
  document.addEventListener("DOMContentLoaded", () => {
    mend();
    // Rows that are added, answers of htmx, boxes that Select2 makes after us.
    new MutationObserver(soon).observe(document.body, { childList: true, subtree: true });
  });
}
