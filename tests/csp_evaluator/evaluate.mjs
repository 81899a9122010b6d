// Runs Google's CSP Evaluator. Standard input: a JSON list of policies, each the text of a header. Standard output:
// {"findings": [[{type, severity, directive, value}, ...] for each policy], "hosts": [URLs known to undo a script-src]}.
// The one argument is the folder into which package.json was installed.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const load = createRequire(`${process.argv[2]}/`);
const { CspEvaluator, DEFAULT_CHECKS, STRICTCSP_CHECKS } = load("csp_evaluator");
const { CspParser } = load("csp_evaluator/dist/parser.js");
const { Severity, Type } = load("csp_evaluator/dist/finding.js");
const { checkHasConfiguredReporting } = load("csp_evaluator/dist/checks/security_checks.js");
const jsonp = load("csp_evaluator/dist/allowlist_bypasses/jsonp.js");
const angular = load("csp_evaluator/dist/allowlist_bypasses/angular.js");

function findings(policy) {
  const evaluator = new CspEvaluator(new CspParser(policy).csp);
  // The strict checks look at the policy as written, the others at what browsers of CSP level 3 make of it.
  return evaluator
    .evaluate([...STRICTCSP_CHECKS, checkHasConfiguredReporting], DEFAULT_CHECKS)
    .map(({ type, severity, directive, value }) => ({
      type: Type[type],
      severity: Severity[severity],
      directive,
      value: value ?? "",
    }));
}

const policies = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify({ findings: policies.map(findings), hosts: [...jsonp.URLS, ...angular.URLS] }));
