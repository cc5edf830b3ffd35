'use strict';
/* A proxy may show the gateway below a path of its own: all paths begin where this page's gateway does. */
const ROOT = location.pathname.replace(/\/*$/, '/').slice(0, -'{{path}}'.length || undefined);
for (const link of document.querySelectorAll('header nav a')) link.href = ROOT + link.getAttribute('href');
const $ = id => document.getElementById(id);
const set = (node, string) => {
  if (node.textContent !== string) node.textContent = string;
};
const el = (name, properties = {}, ...children) => {
  const { class: kind, ...rest } = properties;
  const node = Object.assign(document.createElement(name), rest);
  if (kind) node.className = kind;
  node.append(...children);
  return node;
};
const number = value => Math.round(value).toLocaleString('en');

/* A row of a table: the first cell names it, each other one carries the title of its column. */
const row = (titles, cells) => el('tr', {}, ...cells.map((cell, i) => {
  const node = el(i ? 'td' : 'th', {}, ...[cell].flat());
  if (i) node.dataset.label = titles[i];
  else node.scope = 'row';
  return node;
}));

/* The token of the API stays in this tab. A link may carry it behind the #, which no server sees; it does not
   stay in the address. */
const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) {
  sessionStorage.setItem('corro-token', given);
  history.replaceState(null, '', location.pathname + location.search);
}
const token = () => sessionStorage.getItem('corro-token') ?? '';
const ask = (path, options = {}) => {
  const headers = { ...options.headers };
  if (token()) headers.authorization = `Bearer ${token()}`;
  const limit = { cache: 'no-store', signal: AbortSignal.timeout(options.patience ?? 5000) };
  return fetch(ROOT + path, { ...limit, ...options, headers });
};
const askForToken = again => {
  $('ask').addEventListener('submit', event => {
    event.preventDefault();
    sessionStorage.setItem('corro-token', $('token').value);
    $('token').value = '';
    again();
  });
};
