-- what: on which endpoints a model is sold
-- why: a model that embeds, draws or speaks is no model for chat, and the other way round
-- running version survives it: yes, it serves every model on the endpoints of chat, as the default says
ALTER TABLE catalog.models
    ADD COLUMN endpoints text[] NOT NULL DEFAULT '{chat,messages,count_tokens}' CHECK (endpoints <> '{}');
