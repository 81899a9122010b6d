// Shows what protects the page, and lets a visitor see an injected script blocked.
const verdict = document.getElementById("verdict");
const facts = document.getElementById("facts");

document.addEventListener("securitypolicyviolation", (event) => {
  verdict.textContent = `Blocked by ${event.effectiveDirective}; the report is in the host's log /var/log/nginx/csp.log.`;
});

document.getElementById("try").addEventListener("click", () => {
  verdict.textContent = "";
  const script = document.createElement("script");
  script.textContent = "document.documentElement.dataset.injected = 'ran';";
  document.body.append(script);
  if (document.documentElement.dataset.injected) verdict.textContent = "It ran: there is no policy.";
});

function fact(name, value) {
  facts.append(
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: value ?? "not sent" }),
  );
}

const shown = [
  "strict-transport-security",
  "cross-origin-opener-policy",
  "cross-origin-embedder-policy",
  "cross-origin-resource-policy",
  "referrer-policy",
  "x-content-type-options",
  "permissions-policy",
];
const response = await fetch(location.href, { cache: "no-store" });
fact("inline script of this page", document.documentElement.dataset.inline);
fact("protocol", performance.getEntriesByType("navigation")[0].nextHopProtocol);
fact("content-security-policy", response.headers.get("content-security-policy")?.replaceAll("; ", ";\n"));
for (const name of shown) fact(name, response.headers.get(name));
document.documentElement.dataset.ready = "yes";
