// Copyright: fushuma.production contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"use strict";

async function show() {
  const [items, version] = await Promise.all(
    ["/api/items", "/version"].map(async (address) => (await fetch(address)).json()),
  );
  document.getElementById("items").replaceChildren(
    ...items.map(({ name, price_cents: price }) => {
      const line = document.createElement("li");
      line.textContent = `${name}: ${(price / 100).toFixed(2)}`;
      return line;
    }),
  );
  document.getElementById("release").textContent = version.release;
}

show();
