// The page's own script: draws the figures, answers budgets, sorts tables, copies commands.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const touched = matchMedia("(pointer: coarse)");
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const darker = read("darker");

  // ---- figures ---------------------------------------------------------------------------------

  const recolored = (value) => {
    if (typeof value === "string") return dark.matches && value in darker ? darker[value] : value;
    if (Array.isArray(value)) return value.map(recolored);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolored(item)]));
  };

  // a plot of regions comes empty: the trial to be drawn is chosen in a box
  const choiceOf = (place) => document.getElementById(`${place.id}-choice`);
  const chosenTrial = (place) => read(`${place.id}-trials`)[choiceOf(place).selectedIndex];

  const fillRegions = (figure, place) => {
    const trial = chosenTrial(place);
    const rows = trial.names.map((_, row) => row);
    const cells = (tell) => trial.fires.map((fires, row) => fires.map((count, at) => (count === null ? null : tell(count, row, at))));
    const z = cells((count, _, at) => count / trial.micro_batches[at]);
    const hovertext = cells((count, row, at) => [
      `<b>${trial.names[row]}</b>, epoch ${trial.epochs[at]}`,
      `updated at ${count} of ${trial.micro_batches[at]} micro-batches (${Math.round(100 * z[row][at])} %)`,
      ...(count ? [`mean agreement ${trial.agreement[row][at] ?? "–"}`, `mean wait ${trial.waited[row][at] ?? "–"} micro-batches`] : []),
    ].join("<br>"));
    const roomy = place.clientWidth > 16 * trial.epochs.length;
    Object.assign(figure.data[0], { x: trial.epochs, y: rows, z, hovertext, xgap: roomy ? 1 : 0 });
    const sparse = narrow.matches && trial.epochs.length > 5;
    Object.assign(figure.layout.xaxis, { dtick: trial.epoch_tick * (sparse ? 5 : 1), tick0: 0 });
    Object.assign(figure.layout.yaxis, { tickvals: rows, ticktext: narrow.matches ? trial.narrow_ticks : trial.ticks });
    figure.layout.height = figure.layout.margin.t + figure.layout.margin.b + rows.length * (rows.length > 12 ? 20 : 32);
  };

  const draw = (place) => {
    const figure = recolored(read(place.dataset.figure));
    const ring = place.data && place.data.find((trace) => trace.name === "picked");
    if (ring) Object.assign(figure.data.find((trace) => trace.name === "picked"), { x: ring.x, y: ring.y });
    if (place.classList.contains("regions")) fillRegions(figure, place);
    if (touched.matches) figure.layout.dragmode = false;
    if (narrow.matches) figure.layout.font.size = 11;
    // named one by one: by default plotly offers to send the data to its cloud
    const buttons = [["toImage", "resetScale2d"]];
    const cloudless = { showSendToCloud: false, plotlyServerURL: "" };
    const config = { ...cloudless, displaylogo: false, responsive: true, modeBarButtons: buttons };
    return Plotly.react(place, figure.data, figure.layout, config);
  };

  const show = (row) => {
    document.querySelectorAll("tr.named").forEach((other) => other.classList.remove("named"));
    row.classList.add("named");
    row.scrollIntoView({ block: "center" });
  };

  // a row that waits comes first in its table, which is then sorted by nothing
  const rowAt = (id) => {
    for (const waiting of document.querySelectorAll("template")) {
      const [row, table] = [waiting.content.getElementById(id), waiting.parentElement.querySelector("table")];
      if (!row) continue;
      lay(table, [row, ...rowsOf(table).filter((other) => other !== row)], table.tBodies[0].rows.length + 1);
      table.querySelectorAll("th").forEach((header) => header.removeAttribute("aria-sort"));
    }
    return document.getElementById(id);
  };

  document.querySelectorAll(".figure").forEach((place) => {
    draw(place);
    place.on("plotly_click", ({ points }) => {
      const ids = [`${place.dataset.run}-front-${points[0].customdata}`, `${place.dataset.run}-trial-${points[0].customdata}`];
      const row = rowAt(ids[0]) ?? rowAt(ids[1]);
      if (row) show(row);
    });
  });
  dark.addEventListener("change", () => document.querySelectorAll(".figure").forEach(draw));

  // ---- regions ---------------------------------------------------------------------------------

  document.querySelectorAll(".figure.regions").forEach((place) => {
    choiceOf(place).addEventListener("change", () => {
      draw(place);
      const trial = chosenTrial(place);
      document.querySelectorAll(`#${place.id}-facts dd`).forEach((fact, at) => { fact.textContent = trial.facts[at]; });
      place.closest("section").querySelectorAll("[data-told]").forEach((told) => { told.textContent = trial.words[told.dataset.told]; });
    });
  });

  // ---- budgets ---------------------------------------------------------------------------------

  const within = (value, sign, limit) => (sign === "<=" ? value <= limit : value >= limit);

  const best = (members, name, sign, wanted, wantedSign, limit) => {
    const better = wantedSign === "<=" ? 1 : -1;
    const fitting = members.filter((member) => within(member.values[name], sign, limit));
    return fitting.sort((one, other) => better * (one.values[wanted] - other.values[wanted]))[0];
  };

  const startBudgets = (box) => {
    const run = box.dataset.run;
    const members = read(`${run}-members`);
    const plot = document.getElementById(`${run}-pareto`);
    const picks = new Map();

    const mark = () => {
      const chosen = [...picks.values()].filter(Boolean);
      const rows = new Set(chosen.map((member) => `${run}-front-${member.trial}`));
      document.querySelectorAll(`tr[id^="${run}-front-"]`).forEach((row) => row.classList.toggle("picked", rows.has(row.id)));
      const ring = plot.data.findIndex((trace) => trace.name === "picked");
      Plotly.restyle(plot, { x: [chosen.map((member) => member.at[0])], y: [chosen.map((member) => member.at[1])] }, [ring]);
    };

    box.querySelectorAll(".budget").forEach((budget) => {
      const { name, sign, wanted, wantedSign, wantedWord } = budget.dataset;
      const [low, high] = [Number(budget.dataset.low), Number(budget.dataset.high)];
      const [slider, field] = budget.querySelectorAll("input");
      const [text, command] = [budget.querySelector(".pick"), budget.querySelector(".command")];
      const log = low > 0 && high / low > 5;
      const toValue = (share) => (log ? low * (high / low) ** share : low + share * (high - low));
      const toShare = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low || 1));

      const answer = (limit) => {
        const member = Number.isFinite(limit) ? best(members, name, sign, wanted, wantedSign, limit) : undefined;
        picks.set(name, member);
        command.hidden = !member;
        if (member) {
          const outer = member.ends[name][sign === "<=" ? 1 : 0];
          text.textContent = `The ${wantedWord} that fits is trial ${member.trial}: ${member.words}.`;
          if (!within(outer, sign, limit)) text.append(doubt());
          Object.assign(command.querySelector("code"), { textContent: member.command, title: member.command });
        } else {
          text.textContent = "No model on the front fits.";
        }
        mark();
      };

      const doubt = () => Object.assign(document.createElement("span"), {
        className: "interval",
        textContent: " Its 95 % interval reaches past the limit.",
      });

      // rounding may not push the limit past the model that the slider stands on
      const rounded = (value) => {
        const step = 10 ** (Math.floor(Math.log10(Math.abs(value) || 1)) - 3);
        return Number(((sign === "<=" ? Math.ceil : Math.floor)(value / step - (sign === "<=" ? 1e-9 : -1e-9)) * step).toPrecision(6));
      };
      slider.addEventListener("input", () => {
        field.value = rounded(toValue(slider.value / 1000));
        answer(Number(field.value));
      });
      field.addEventListener("input", () => {
        slider.value = 1000 * toShare(Number(field.value));
        answer(field.value === "" ? NaN : Number(field.value));
      });
      field.value = rounded(Number(budget.dataset.start));
      field.dispatchEvent(new Event("input"));
    });
  };
  document.querySelectorAll(".budgets").forEach(startBudgets);

  // ---- tables ----------------------------------------------------------------------------------

  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" || text === "None" || text === "nan" ? null : Number.isNaN(number) ? text : number;
  };

  const compare = (one, other) => {
    if (one === null || other === null) return 0;
    return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));
  };

  // of very many rows most wait in a template, which the browser does not lay out
  const waitingOf = (table) => table.parentElement.querySelector("template");
  const moreOf = (table) => table.closest("section").querySelector(".more");
  const rowsOf = (table) => [...table.tBodies[0].rows, ...(waitingOf(table)?.content.children ?? [])];
  const labelled = (table, row) => {
    [...row.cells].forEach((cell, at) => { cell.dataset.label = table.tHead.rows[0].cells[at].textContent; });
    return row;
  };

  const lay = (table, rows, count) => {
    table.tBodies[0].replaceChildren(...rows.slice(0, count).map((row) => labelled(table, row)));
    const [waiting, more] = [waitingOf(table), moreOf(table)];
    if (!waiting) return;
    waiting.content.replaceChildren(...rows.slice(count));
    more.querySelector("span").textContent = `${Math.min(count, rows.length)} of ${rows.length} trials are shown; trials.csv holds all.`;
    more.querySelector("button").hidden = count >= rows.length;
  };

  const sort = (table, header) => {
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const rows = rowsOf(table).map((row) => ({ row, key: key(row, header.cellIndex) }));
    rows.sort((one, other) => (one.key === null) - (other.key === null) || direction * compare(one.key, other.key));
    lay(table, rows.map(({ row }) => row), table.tBodies[0].rows.length);
  };

  document.querySelectorAll(".sortable").forEach((table) => {
    table.classList.add("labelled");
    const few = table.tBodies[0].rows.length;
    lay(table, rowsOf(table), few);
    moreOf(table)?.querySelector("button").addEventListener("click", () => lay(table, rowsOf(table), table.tBodies[0].rows.length + few));
    table.querySelectorAll("th").forEach((header) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: header.textContent });
      header.replaceChildren(button);
      button.addEventListener("click", () => sort(table, header));
    });
  });

  // ---- commands --------------------------------------------------------------------------------

  document.querySelectorAll(".copy").forEach((button) => {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });
})();
