CREATE MACRO _without_members(j, patch) AS CASE WHEN j IS NOT NULL THEN json_merge_patch(j, patch)::JSON END;
