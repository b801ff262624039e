// For BA_CONFIG_MODULE: a JWT that names the session it was made in, so that a sign-out can end it.
export const pluginOptions = {
  jwt: { jwt: { definePayload: ({ user, session }) => ({ email: user.email, sid: session.id }) } },
};
