(() => {
  "use strict";
  const every = 2000, patience = 10000;
  const root = document.documentElement, note = document.getElementById("live");
  let updates = 0;

  // What a reader has marked stays where it is; the headline is always replaced.
  const busy = (part) => {
    const s = document.getSelection();
    return part.id !== "state" && s && !s.isCollapsed && part.contains(s.anchorNode);
  };

  const show = (fresh) => {
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = fresh.getElementById(part.id);
      if (!next) throw new Error("it is no status page any more");
      if (!busy(part) && next.outerHTML !== part.outerHTML) part.replaceWith(document.adoptNode(next));
    }
    document.title = fresh.title;
  };

  const ask = async () => {
    try {
      const answer = await fetch(location.pathname, {
        headers: {Accept: "text/html"}, cache: "no-store", signal: AbortSignal.timeout(patience),
      });
      if (!answer.ok) throw new Error("status " + answer.status);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      root.dataset.updates = String(++updates);
      delete root.dataset.stale;
      note.textContent = "";
    } catch (e) {
      if (!root.dataset.stale) {
        root.dataset.stale = "yes";
        const seen = document.getElementById("seen").textContent;
        note.textContent = "No answer since " + seen + ". What you see is as it was then, and may not be so any more.";
        document.title = "No answer · " + document.title;
      }
    }
    setTimeout(ask, every);
  };

  setTimeout(ask, every);
})();
