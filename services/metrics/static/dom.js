// The few helpers that stand between data and nodes. Text only ever goes in as text.

export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c != null));
  return node;
}

// Writing what stands there already would cost layout, and a screen reader would say it again.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

export function attr(node, name, value) {
  if (value == null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function className(node, value) {
  if (node.className !== value) node.className = value;
}

// One node per item, kept by key: make(item) builds it once, update(node, item) follows it.
export function list(parent, items, key, make, update) {
  const known = (parent.keyed ??= new Map());
  const seen = new Set();
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    seen.add(id);
    let row = known.get(id);
    if (!row) known.set(id, (row = make(item)));
    update(row, item);
    if (row.node === at) at = at.nextElementSibling;
    else parent.insertBefore(row.node, at);
  }
  for (const [id, row] of known) {
    if (!seen.has(id)) {
      row.node.remove();
      known.delete(id);
    }
  }
}

export function empty(parent) {
  parent.keyed?.clear();
  parent.replaceChildren();
}
