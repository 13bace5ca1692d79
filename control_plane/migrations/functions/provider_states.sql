-- Who is told to leave a provider out hears of it with the commit.
CREATE OR REPLACE FUNCTION catalog.announce_provider_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('provider_states_changed', '');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER announce AFTER INSERT ON catalog.provider_states
    FOR EACH STATEMENT EXECUTE FUNCTION catalog.announce_provider_state();
