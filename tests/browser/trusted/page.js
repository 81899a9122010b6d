// Writes HTML once through a policy of Trusted Types and once as plain text, as old code does.
const policy = trustedTypes.createPolicy("page", { createHTML: (text) => text });
document.getElementById("typed").innerHTML = policy.createHTML("<b>typed</b>");
try {
  document.getElementById("plain").innerHTML = "<b>plain</b>";
} catch (error) {
  document.documentElement.dataset.refused = error.name;
}
document.documentElement.dataset.ready = "yes";
