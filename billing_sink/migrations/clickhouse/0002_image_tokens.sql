-- what: columns for tokens of images
-- why: they have prices of their own
-- running version survives it: yes, it leaves them at zero
ALTER TABLE requests
    ADD COLUMN IF NOT EXISTS image_input_tokens UInt64 AFTER audio_output_tokens,
    ADD COLUMN IF NOT EXISTS image_output_tokens UInt64 AFTER image_input_tokens
