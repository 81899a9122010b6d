// Shows what protects the page, and lets a visitor see an injected script blocked.
const verdict = document.getElementById("verdict");
const facts = document.getElementById("facts");

document.addEventListener("securitypolicyviolation", (event) => {
  verdict.textContent = `Blocked by ${event.effectiveDirective}; the report is in the host's log.`;
});

document.getElementById("try").addEventListener("click", () => {
  verdict.textContent = "";
  const script = document.createElement("script");
  script.textContent = "document.documentElement.dataset.injected = 'ran';";
  document.body.append(script);
  if (document.documentElement.dataset.injected) verdict.textContent = "It ran: there is no policy.";
});

function fact(name, value) {
  const row = facts.insertRow();
  row.insertCell().textContent = name;
  row.insertCell().textContent = value ?? "not sent";
}

const shown = [
  "content-security-policy",
  "strict-transport-security",
  "cross-origin-opener-policy",
  "referrer-policy",
  "permissions-policy",
];
const response = await fetch(location.href, { cache: "no-store" });
fact("the inline script", document.documentElement.dataset.inline);
for (const name of shown) fact(name, response.headers.get(name));
document.documentElement.dataset.ready = "yes";
