// Reads requests as JSON on standard input, asks @cloud-copilot/iam-simulate, and writes its answers in the same order.
import { runSimulation } from '@cloud-copilot/iam-simulate'

const text = await new Response(process.stdin).text()
const answers = []
for (const one of JSON.parse(text)) {
  const named = (policies) => policies.map((policy, index) => ({ name: `p${index}`, policy }))
  const said = await runSimulation(
    {
      request: {
        principal: one.principal,
        action: one.action,
        resource: { resource: one.resource, accountId: '123456789012' },
        contextVariables: one.context,
      },
      identityPolicies: named(one.identity),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
      ...(one.boundary ? { permissionBoundaryPolicies: named(one.boundary) } : {}),
      ...(one.trust ? { resourcePolicy: one.trust } : {}),
    },
    {},
  )
  answers.push(said.errors ? `error: ${JSON.stringify(said.errors)}` : said.analysis ? said.analysis.result : said.overallResult ?? JSON.stringify(said))
}
process.stdout.write(JSON.stringify(answers))
