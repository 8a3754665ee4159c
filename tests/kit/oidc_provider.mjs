// A real, certified OpenID Connect provider (npm oidc-provider) with its own login and consent pages:
// whoever gives a name of `accounts` is that person, with any password.
// node oidc_provider.mjs FOLDER CONFIG-JSON
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, text] = process.argv.slice(2);
const config = JSON.parse(text);
// A provider whose clock is wrong, or whose answer was kept for a while.
const now = Date.now;
Date.now = () => now() + config.clock_s * 1000;
const found = createRequire(`${folder}/`).resolve("oidc-provider");
const { Provider } = await import(pathToFileURL(found));

const provider = new Provider(config.issuer, {
  clients: [config.client],
  jwks: { keys: config.keys },
  scopes: ["openid", "profile", "email", "groups"],
  claims: {
    openid: ["sub"], profile: ["name", "preferred_username"], email: ["email", "email_verified"],
    groups: ["groups"],
  },
  // As Keycloak and Entra ID do: what was asked for stands in the ID token.
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  cookies: { keys: ["test"] },
  findAccount: (_ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, preferred_username: sub, ...config.accounts[sub] }),
  }),
});
provider.listen(config.port, config.host, () => console.log("READY"));
